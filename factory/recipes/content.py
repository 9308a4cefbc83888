"""The files of a recipe's folder that go into its image, each with its digest.

Apptainer copies `%files` from the host as follows (internal/pkg/build/files): the host's /bin/sh expands the
source, in which only blanks are escaped, and `cp -fLr` copies the result. Shell syntax in a source would
therefore run on the build host, and is refused here.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from factory.io.plain import NotPlainError, digest_of
from factory.oci.digest import Digest
from factory.recipes.definition.agents import section_problem
from factory.recipes.definition.arguments import MOVING
from factory.recipes.definition.copies import Copy
from factory.recipes.definition.definition import Definition
from factory.recipes.inside import UnusableError, resolve_inside
from factory.recipes.model import Place, Problem, ProblemError, Recipe

# Letters of any language, and punctuation that is literal to shells, printf and cp.
# Character classes such as [[:digit:]] are excluded: shells and Python read them differently.
_SOURCE = re.compile(r"(?!.*\[\[)[\w ./@+,:=*?\[\]!-]+")
_PLAIN = re.compile(r"[\w ./@+,:=!-]+")
_REMEDY = "put the file in the recipe's folder and write its relative path, as in: files/app /opt/app"


@dataclass(frozen=True)
class _Child:
    """An entry of a folder: its name, its path with links resolved, its mode, and whether it is a link."""

    name: str
    real: Path
    mode: int
    linked: bool


class Walk:
    """A walk through a folder, shared by all `%files` entries of a recipe.

    A few links between folders, or a few patterns, can match more files than any disk holds. Listings are therefore
    cached, and the number of steps is limited.
    """

    def __init__(self, folder: Path, steps: int = 100_000) -> None:
        self.folder = folder
        self._left = steps
        self._children: dict[tuple[Path, str], tuple[_Child, ...]] = {}

    @property
    def is_over(self) -> bool:
        """Whether the limit was exceeded."""
        return self._left < 0

    def step(self, place: Place) -> None:
        """Count a file. Raises ProblemError when the limit is exceeded."""
        self._left -= 1
        if self.is_over:
            raise ProblemError(
                Problem(
                    place,
                    "%files: the entries of this recipe match too many files",
                    "copy fewer files, and check for links between folders",
                )
            )

    def children(self, folder: Path, shown: str, place: Place, pattern: str = "") -> tuple[_Child, ...]:
        """Return the entries of a resolved folder that match the pattern. shown: its path in messages.

        Raises ProblemError.
        """
        key = folder, pattern
        if key not in self._children:
            try:
                names = _matching(folder, pattern) if pattern else os.listdir(folder)  # noqa: PTH208
                self._children[key] = tuple(self._child(folder, name, shown, place) for name in names)
            except OSError as error:
                raise _problem(place, shown, f"cannot be read: {error.strerror}") from error
        return self._children[key]

    def _child(self, folder: Path, name: str, shown: str, place: Place) -> _Child:
        path = folder / name
        real = path
        if linked := path.is_symlink():
            real = _resolved(self.folder, str(path.relative_to(self.folder)), place, f"{shown}/{name}".lstrip("/"))
        try:
            mode = real.lstat().st_mode
        except FileNotFoundError:
            raise _problem(place, f"{shown}/{name}".lstrip("/"), "is a broken link") from None
        return _Child(name, real, mode, linked)


def build_inputs(recipe: Recipe, definition: Definition) -> tuple[tuple[str, str], ...]:
    """Return every file that `%files` copies from the host: its path in the recipe's folder and ``MODE:sha256:HEX``.

    definition: with its arguments bound. The result is sorted by path. Links are followed. MODE is 0755 if the
    file is executable, else 0644, because git keeps nothing else. Raises ProblemError, with file and line, for a
    source that does not exist, leaves the folder, or is neither a file nor a folder.
    """
    found: dict[str, str] = {}
    digests: dict[Path, Digest] = {}
    walk = Walk(recipe.folder)
    for stage in definition.stages:
        for section in stage.named("appfiles"):
            raise ProblemError(section_problem("appfiles", Place(definition.path, section.line)))
        for section in stage.named("files"):
            for copy in () if section.source_stage else section.copies():
                place = Place(definition.path, copy.line)
                for relative, path, mode in copied_files(walk, copy, place):
                    if path not in digests:
                        digests[path] = _digest(relative, path, place)
                    found[relative] = _marked(mode, digests[path])
    return tuple(sorted(found.items()))


def files_of_tests(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """Return every file below the recipe's folder `tests`, like ``build_inputs``; none if there is no such folder."""
    if not (recipe.folder / "tests").is_dir():
        return ()
    place = Place(recipe.folder / "tests")
    files = copied_files(Walk(recipe.folder), Copy("tests", "", 0), place)
    return tuple(sorted((relative, _marked(mode, _digest(relative, path, place))) for relative, path, mode in files))


def _marked(mode: int, digest: Digest) -> str:
    executable = 0o755 if mode & stat.S_IXUSR else 0o644
    return f"{executable:04o}:{digest}"


def refuse_moving(written: Definition, values: Mapping[str, str]) -> None:
    """Raise ProblemError for a source that depends on the build machine.

    The mirror and the base's digest are known only during a build. Sources that contain them would copy files that
    lint has not checked and the input key does not cover. written: the definition before its arguments are bound.
    """
    moved = {**values, **{name: "moved" for name in MOVING if name in values}}
    for before, after in zip_longest(_copies(written.bind(values)), _copies(written.bind(moved))):
        if before != after:
            names = " and ".join(f"{{{{ {name} }}}}" for name in MOVING)
            raise ProblemError(
                Problem(
                    Place(written.path, (before or after).line),
                    f"%files cannot use {names}: their values differ between machines",
                    "write the file's path",
                )
            )


def _matching(folder: Path, pattern: str) -> list[str]:
    """Return the names in a folder that a pattern matches. Not by Path.glob, which also finds hidden files."""
    return [os.path.basename(path) for path in glob.glob(f"{glob.escape(str(folder))}/{pattern}")]  # noqa: PTH119, PTH207


def _copies(definition: Definition) -> tuple[Copy, ...]:
    return tuple(copy for stage in definition.stages for section in stage.named("files") for copy in section.copies())


def copied_files(walk: Walk, copy: Copy, place: Place) -> Iterator[tuple[str, Path, int]]:
    """Yield the path, resolved path and mode of every file that one source matches, folders searched recursively.

    Raises ProblemError as build_inputs does.
    """
    # Each path as Apptainer sees it, its resolved path, its mode, and the resolved folders above it.
    waiting: list[tuple[str, Path, int, tuple[Path, ...]]] = []
    for relative in expand(walk, copy, place):
        real = _resolved(walk.folder, relative, place)
        waiting.append((relative, real, _mode(relative, real, place), ()))
    while waiting:
        relative, path, mode, above = waiting.pop()
        walk.step(place)
        if stat.S_ISREG(mode):
            yield relative, path, mode
        elif not stat.S_ISDIR(mode):
            raise _problem(place, relative, "is neither a file nor a folder")
        else:
            above = (*above, path)
            for child in walk.children(path, relative, place):
                name = f"{relative}/{child.name}"
                if child.linked and child.real in above:
                    raise _problem(place, name, "is a link to a folder that contains it")
                waiting.append((name, child.real, child.mode, above))


def _mode(relative: str, path: Path, place: Place) -> int:
    try:
        return path.lstat().st_mode
    except OSError as error:
        raise _problem(place, relative, f"cannot be read: {error.strerror}") from error


def expand(walk: Walk, copy: Copy, place: Place) -> tuple[str, ...]:
    """Return the paths in the recipe's folder that a source of `%files` matches.

    Raises ProblemError if there is none, or if one leaves the folder.
    """
    refuse_shell(copy.source, place)
    source = copy.source
    if source.startswith("/"):
        raise _problem(place, source, "is an absolute path of the build host")
    if ".." in PurePosixPath(source).parts:
        raise _problem(place, source, "contains ..")
    if source.startswith("-"):
        raise _problem(place, source, "starts with -, which cp would read as an option")
    # Like a shell, keep a pattern that matches nothing.
    matches = sorted(_matches(walk, source, place)) if glob.has_magic(source) else []
    relatives = tuple(str(PurePosixPath(match)) for match in matches or [source])
    for relative in relatives:
        if matches and (relative.startswith("-") or not _PLAIN.fullmatch(relative)):
            raise _problem(place, source, f"matches the name {relative!a}, which Apptainer cannot copy")
        if not _resolved(walk.folder, relative, place).exists():
            raise _problem(place, source, "does not exist in the recipe's folder")
    return relatives


def _matches(walk: Walk, pattern: str, place: Place) -> list[str]:
    """Return the paths in the folder that match a pattern. It is expanded part by part, so that steps are counted."""
    found = [("", walk.folder, stat.S_IFDIR)]
    for part in PurePosixPath(pattern).parts:
        following = []
        for before, above, mode in found:
            for child in walk.children(above, before, place, part) if stat.S_ISDIR(mode) else ():
                walk.step(place)
                following.append((f"{before}/{child.name}".lstrip("/"), child.real, child.mode))
        found = following
    return [match for match, _, mode in found if stat.S_ISDIR(mode) or not pattern.endswith("/")]


def refuse_shell(source: str, place: Place) -> None:
    """Raise ProblemError for a source with shell syntax other than a glob pattern."""
    if _SOURCE.fullmatch(source) is None:
        raise ProblemError(
            Problem(
                place,
                f"%files: {source!a} contains a character that the build host's shell would interpret",
                "use letters, digits, spaces, . _ - / @ + , : = and the patterns * ? [ ]",
            )
        )


def _digest(relative: str, path: Path, place: Place) -> Digest:
    try:
        return digest_of(path)[0]
    except NotPlainError as error:
        raise _problem(place, relative, error.how) from error
    except OSError as error:
        raise _problem(place, relative, f"cannot be read: {error.strerror}") from error


def _resolved(folder: Path, relative: str, place: Place, shown: str = "") -> Path:
    """Return the path with its links resolved. shown: its name in messages, by default the path itself."""
    try:
        return resolve_inside(folder, relative)
    except UnusableError as error:
        raise _problem(place, shown or relative, str(error)) from error
    except OSError as error:
        raise _problem(place, shown or relative, f"cannot be read: {error.strerror}") from error


def _problem(place: Place, source: str, what: str) -> ProblemError:
    return ProblemError(Problem(place, f"%files: {source} {what}", _REMEDY))

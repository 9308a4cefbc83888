"""The files of a recipe's folder that go into its image, with a digest each.

Apptainer copies `%files` from the host like this (internal/pkg/build/files): the source, with its blanks
escaped, is a word in a script for the host's /bin/sh, which expands it; then `cp -fLr`. So whatever
means something to a shell in a source runs on the build host, and is refused here.
"""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from factory.digest import Digest
from factory.io.plain import NotPlainError, digest_of_plain
from factory.recipes.agents import section_problem
from factory.recipes.copies import Copy
from factory.recipes.definition import Definition
from factory.recipes.inside import UnusableError, resolve_inside
from factory.recipes.model import Place, Problem, ProblemError, Recipe

# Letters of any language, and punctuation that no shell, printf or cp reads as anything else.
# Classes such as [[:digit:]] are left out: shells and Python differ about them.
_SOURCE = re.compile(r"(?!.*\[\[)[\w ./@+,:=*?\[\]!-]+")
_PLAIN = re.compile(r"[\w ./@+,:=!-]+")
_REMEDY = "copy what is inside the recipe's folder, by its relative path, as in: files/app /opt/app"


@dataclass
class Walk:
    """A walk through the files of a folder, for all of a recipe's `%files`. left: how many it may still look at.

    A few links to each other's folders, or a few patterns, can stand for more files than any disk holds.
    """

    folder: Path
    left: int = 100_000

    def step(self, place: Place) -> None:
        """Count a file. Raises ProblemError when there were too many."""
        self.left -= 1
        if self.left < 0:
            raise _problem(place, "all of it", "stands for too many files")


def build_inputs(recipe: Recipe, definition: Definition) -> tuple[tuple[str, str], ...]:
    """Every file that `%files` takes from the host: its path in the recipe's folder and ``MODE:sha256:HEX``.

    definition: with its arguments bound. Sorted by path. A link counts as what it points to; MODE is
    0755 or 0644, executable or not, which is all that git keeps. Raises ProblemError, with file and
    line, for a source that does not exist, leaves the folder, or is not a file or folder.
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
                    executable = 0o755 if mode & stat.S_IXUSR else 0o644
                    found[relative] = f"{executable:04o}:{digests[path]}"
    return tuple(sorted(found.items()))


def copied_files(walk: Walk, copy: Copy, place: Place) -> Iterator[tuple[str, Path, int]]:
    """The files that one source stands for, folders walked to their ends: path, real path and mode.

    Raises ProblemError as build_inputs does.
    """
    folder = walk.folder
    # Each path as Apptainer sees it, where it really is, and the real folders that led to it.
    waiting: list[tuple[str, Path, tuple[Path, ...]]] = [
        (relative, _resolved(folder, relative, place), ()) for relative in expand(walk, copy, place)
    ]
    while waiting:
        relative, path, above = waiting.pop()
        walk.step(place)
        try:
            mode = path.lstat().st_mode
            children = list(path.iterdir()) if stat.S_ISDIR(mode) else []
        except OSError as error:
            raise _problem(place, relative, f"cannot be read: {error.strerror}") from error
        if stat.S_ISREG(mode):
            yield relative, path, mode
        elif not stat.S_ISDIR(mode):
            raise _problem(place, relative, "is neither a file nor a folder")
        above = (*above, path)
        for child in children:
            name = f"{relative}/{child.name}"
            linked = child.is_symlink()
            real = _resolved(folder, str(child.relative_to(folder)), place) if linked else child
            if linked and real in above:
                raise _problem(place, name, "is a link to a folder that holds it")
            waiting.append((name, real, above))


def expand(walk: Walk, copy: Copy, place: Place) -> tuple[str, ...]:
    """The paths in the folder that a source of `%files` stands for, all of them existing and inside.

    Raises ProblemError.
    """
    refuse_shell(copy.source, place)
    source = copy.source
    if source.startswith("/"):
        raise _problem(place, source, "is an absolute path of the build host")
    if ".." in PurePosixPath(source).parts:
        raise _problem(place, source, "holds ..")
    if source.startswith("-"):
        raise _problem(place, source, "starts with -, which cp takes for an option")
    # What matches nothing stays as it is, for a shell as for us.
    matches = sorted(_matches(walk, source, place)) if glob.has_magic(source) else []
    relatives = tuple(str(PurePosixPath(match)) for match in matches or [source])
    for relative in relatives:
        if matches and (relative.startswith("-") or not _PLAIN.fullmatch(relative)):
            raise _problem(place, source, f"matches the name {relative!a}, which Apptainer cannot copy")
        if not _resolved(walk.folder, relative, place).exists():
            raise _problem(place, source, "does not exist in the recipe's folder")
    return relatives


def _matches(walk: Walk, pattern: str, place: Place) -> list[str]:
    """The paths in the folder that a pattern matches, found part by part so that they can be counted."""
    found = [""]
    for part in PurePosixPath(pattern).parts:
        following = []
        for before in found:
            above = _resolved(walk.folder, before, place)
            # Not Path.glob: it finds hidden files.
            for name in glob.glob(part, root_dir=above):  # noqa: PTH207
                walk.step(place)
                following.append(f"{before}/{name}".lstrip("/"))
        found = following
    return [match for match in found if not pattern.endswith("/") or _resolved(walk.folder, match, place).is_dir()]


def refuse_shell(source: str, place: Place) -> None:
    """Refuse a source with anything that a shell would run or expand, other than a glob. Raises ProblemError."""
    if _SOURCE.fullmatch(source) is None:
        raise ProblemError(
            Problem(
                place,
                f"%files: {source!a} holds a character that the build host's shell would interpret",
                "use letters, digits, blanks, . _ - / @ + , : = and the patterns * ? [ ]",
            )
        )


def _digest(relative: str, path: Path, place: Place) -> Digest:
    try:
        return digest_of_plain(path)
    except NotPlainError as error:
        raise _problem(place, relative, str(error)) from error
    except OSError as error:
        raise _problem(place, relative, f"cannot be read: {error.strerror}") from error


def _resolved(folder: Path, relative: str, place: Place) -> Path:
    try:
        return resolve_inside(folder, relative)
    except UnusableError as error:
        raise _problem(place, relative, str(error)) from error
    except OSError as error:
        raise _problem(place, relative, f"cannot be read: {error.strerror}") from error


def _problem(place: Place, source: str, what: str) -> ProblemError:
    return ProblemError(Problem(place, f"%files: {source} {what}", _REMEDY))

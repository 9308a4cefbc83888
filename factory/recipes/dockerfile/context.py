"""The files of a recipe's folder that a Dockerfile build reads, each with its digest.

A builder gets a copy of exactly these files: what COPY, ADD and ``RUN --mount=type=bind`` of the needed stages name,
without what `.dockerignore` hides. So an image cannot depend on a file that its input key does not cover.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from factory.io.plain import NotPlainError, digest_of
from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile import ignore
from factory.recipes.dockerfile.globs import MAGIC, PatternError, part
from factory.recipes.dockerfile.ignore import Ignore
from factory.recipes.inside import UnusableError, resolve_inside
from factory.recipes.model import Place, Problem, ProblemError

_REMOTE = re.compile(r"(?:https?|ftp|git|ssh)://|git@|[^/\s@]+@[^/\s@]+:", re.IGNORECASE)  # linear: no @ twice
_MOST_STEPS = 200_000  # a file counts when it is checked, and again when it is listed
FILE, FOLDER, LINK = "file", "folder", "link"


@dataclass(frozen=True)
class Source:
    """A source in the build context. instruction: COPY, ADD or RUN. path: as written, with variables replaced."""

    instruction: str
    path: str
    line: int


@dataclass(frozen=True)
class Entry:
    """A file, folder or link of the context. path: below the recipe's folder. target: of a link."""

    path: str
    kind: str
    executable: bool = False
    target: str = ""


def is_remote(source: str) -> bool:
    """Return whether a source of ADD is a URL or a git repository."""
    return _REMOTE.match(source) is not None


class Context:
    """A recipe's folder as the context of a build."""

    def __init__(self, folder: Path, dockerfile: str, path: Path | None = None) -> None:
        """Read `.dockerignore`. dockerfile: the path of the Dockerfile in the folder. Raises ProblemError.

        path: of a Dockerfile that is elsewhere, for messages.
        """
        self._folder = folder
        self._path = path or folder / dockerfile
        self._ignore: Ignore = ignore.read(folder, dockerfile)
        self._left = _MOST_STEPS
        self._listed: dict[str, tuple[str, ...]] = {}

    def entries(self, sources: Iterable[Source]) -> tuple[Entry, ...]:
        """Return everything that these sources name, sorted by path. Raises ProblemError."""
        found: dict[str, Entry] = {}
        for source in sources:
            for path in self._matches(source):
                for entry in self._below(path, source):
                    found[entry.path] = entry
        return tuple(found[path] for path in sorted(found))

    def digests(self, entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
        """Return each entry's path and ``MODE:DIGEST``, ``link:TARGET`` or ``folder``, for the input key."""
        return tuple((entry.path, self._digest(entry)) for entry in entries)

    def _digest(self, entry: Entry) -> str:
        if entry.kind != FILE:
            return f"{entry.kind}:{entry.target}".rstrip(":")
        try:
            return f"{0o755 if entry.executable else 0o644:04o}:{digest_of(self._folder / entry.path)[0]}"
        except (NotPlainError, OSError) as error:
            why = error.how if isinstance(error, NotPlainError) else f"cannot be read: {error.strerror}"
            raise ProblemError(Problem(Place(self._path), f"{shown(entry.path)} {why}", "correct the file")) from error

    def _matches(self, source: Source) -> tuple[str, ...]:
        """Return the paths that a source names, '' for the whole folder. Raises ProblemError."""
        parts = _parts(source.path)
        if parts is None:
            self._refuse(source, "leaves the recipe's folder", "put the file in the recipe's folder")
        found = [""]
        for one in parts:
            if MAGIC.search(one):
                found = [name for above in found for name in self._matching(above, one, source)]
            else:
                found = [posixpath.join(above, one) for above in found]
        seen = tuple(path for path in found if not path or self._is_there(path, source))
        if not seen:
            self._refuse_missing(source, "/".join(parts))
        return seen

    def _matching(self, above: str, pattern: str, source: Source) -> Iterator[str]:
        try:
            expression = part(pattern)
        except PatternError as error:
            self._refuse(source, str(error), "correct the pattern")
        if not (self._folder / above).is_dir():
            return
        for name in self._names(self._real(above, source), source):
            self._step(source)
            if expression.match(name):
                yield posixpath.join(above, name)

    def _is_there(self, path: str, source: Source) -> bool:
        real = self._real(path, source)
        return os.path.lexists(self._folder / real) and self._has_visible(path)

    def _has_visible(self, path: str) -> bool:
        """Return whether a path is visible: a hidden folder may have visible files."""
        return not self._ignore.hides(path) or (self._folder / path).is_dir()

    def _below(self, path: str, source: Source) -> Iterator[Entry]:
        """Yield what is at a path and below it, and the links through which it is reached."""
        real = self._real(path, source)
        yield from self._links(path, source)
        waiting = [real]
        while waiting:
            here = waiting.pop()
            self._step(source)
            entry = self._entry(here, source) if here else Entry("", FOLDER)
            if entry.kind == FOLDER and (self._ignore.has_exceptions or not self._ignore.hides(here)):
                waiting += [posixpath.join(here, name) for name in self._names(here, source)]
            if here and not self._ignore.hides(here):
                yield entry

    def _links(self, path: str, source: Source) -> Iterator[Entry]:
        """Yield the links among a path's parts. They stay in the folder: _real has followed them."""
        parts = path.split("/") if path else []
        for end in range(1, len(parts) + 1):
            above = "/".join(parts[:end])
            place = self._folder / above
            if place.is_symlink():
                yield Entry(above, LINK, target=str(place.readlink()))
                real = self._real(above, source)
                yield from self._links(posixpath.join(real, *parts[end:]), source)
                return

    def _entry(self, path: str, source: Source) -> Entry:
        place = self._folder / path
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            self._refuse(source, f"cannot be read: {error.strerror}", "correct its permissions", path)
        if stat.S_ISLNK(mode):
            self._real(path, source)
            return Entry(path, LINK, target=str(place.readlink()))
        if stat.S_ISDIR(mode):
            return Entry(path, FOLDER)
        if not stat.S_ISREG(mode):
            self._refuse(source, "is neither a file nor a folder", "remove it, or hide it in .dockerignore", path)
        return Entry(path, FILE, executable=bool(mode & stat.S_IXUSR))

    def _names(self, path: str, source: Source) -> tuple[str, ...]:
        if path not in self._listed:
            try:
                self._listed[path] = tuple(sorted(os.listdir(self._folder / path)))  # noqa: PTH208 - only names
            except OSError as error:
                self._refuse(source, f"cannot be read: {error.strerror}", "correct its permissions", path)
        return self._listed[path]

    def _real(self, path: str, source: Source) -> str:
        """Return a path with its links resolved. Raises ProblemError if it leaves the folder."""
        try:
            real = resolve_inside(self._folder, path).relative_to(self._folder).as_posix()
        except UnusableError as error:
            remedy = "put the file itself in the recipe's folder, or create the link with RUN ln -s"
            self._refuse(source, str(error), remedy, path)
        except OSError as error:
            self._refuse(source, f"cannot be read: {error.strerror}", "correct its permissions", path)
        return "" if real == "." else real

    def _step(self, source: Source) -> None:
        self._left -= 1
        if self._left < 0:
            remedy = "copy fewer files, or hide those that the image does not need in .dockerignore"
            self._refuse(source, "is one too many: the Dockerfile names too many files", remedy)

    def _refuse_missing(self, source: Source, path: str) -> NoReturn:
        if not MAGIC.search(path) and os.path.lexists(self._folder / path):
            name = self._ignore.path.name if self._ignore.path else "the factory"
            self._refuse(source, f"is hidden by {name}", f"write !{path} at the end of .dockerignore")
        above, _, name = path.rpartition("/")
        place = self._folder / above
        there: Sequence[str] = os.listdir(place) if not MAGIC.search(above) and place.is_dir() else ()  # noqa: PTH208
        near = get_close_matches(name, there, n=1)
        remedy = f"did you mean {posixpath.join(above, near[0])}?" if near else "put it there, or correct the path"
        if source.path.startswith("/"):
            remedy = f"in a Dockerfile, / is the recipe's folder; {remedy}"
        self._refuse(source, "does not exist in the recipe's folder", remedy)

    def _refuse(self, source: Source, what: str, remedy: str, path: str = "") -> NoReturn:
        message = f"{source.instruction}: {shown(path or source.path)} {what}"
        raise ProblemError(Problem(Place(self._path, source.line), message, remedy))


def _parts(path: str) -> tuple[str, ...] | None:
    """Return the parts of a path in the context, of which / is the recipe's folder; None if .. leaves it."""
    found: list[str] = []
    for one in path.split("/"):
        if one == "..":
            if not found:
                return None
            found.pop()
        elif one not in ("", "."):
            found.append(one)
    return tuple(found)

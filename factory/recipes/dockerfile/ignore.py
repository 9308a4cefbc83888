"""`.dockerignore`: the files of a build context that no instruction sees.

Specification: Docker's "Dockerfile reference", ".dockerignore file", and github.com/moby/patternmatcher: the last
pattern that matches a path, or a folder above it, decides; `!` makes it an exception.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.recipes.dockerfile.globs import ANY_FOLDERS, PatternError, part
from factory.recipes.inside import UnusableError, read_inside
from factory.recipes.model import Place, Problem, ProblemError

FILE = ".dockerignore"
OWN = ("recipe.toml", "base.lock")  # the factory's own files are part of an image only where `!` says so
_MOST_PATTERNS = 500
_MOST_PARTS = 50


@dataclass(frozen=True)
class Pattern:
    """One line. parts: its path, split. exception: it begins with `!`."""

    parts: tuple[str, ...]
    exception: bool

    def matches(self, path: Sequence[str]) -> bool:
        """Return whether it matches a path, or a folder above it. path: split."""
        places = {0}  # how many parts of the path are matched so far
        last = len(self.parts) - 1
        for number, pattern in enumerate(self.parts):
            if pattern == ANY_FOLDERS:  # at the end it means everything below, not the folder itself
                places = set(range(min(places) + (number == last), len(path) + 1))
            else:
                found = part(pattern)
                places = {place + 1 for place in places if place < len(path) and found.match(path[place])}
            if not places:
                return False
        return True


@dataclass(frozen=True)
class Ignore:
    """The patterns that apply to a context. path: the file that they were read from; None without one."""

    patterns: tuple[Pattern, ...]
    path: Path | None = None

    @property
    def has_exceptions(self) -> bool:
        """Whether a file in a hidden folder may be visible."""
        return any(pattern.exception for pattern in self.patterns)

    def hides(self, path: str) -> bool:
        """Return whether a path in the context, such as ``src/main.py``, is hidden from all instructions."""
        if not path:
            return False
        parts = path.split("/")
        hidden = False
        for pattern in self.patterns:
            if pattern.exception == hidden and pattern.matches(parts):
                hidden = not hidden
        return hidden


def read(folder: Path, dockerfile: str) -> Ignore:
    """Read the patterns for a Dockerfile: from ``NAME.dockerignore`` next to it, else from `.dockerignore`.

    Raises ProblemError.
    """
    own = tuple(Pattern((name,), exception=False) for name in OWN)
    for name in (f"{dockerfile}{FILE}", FILE):
        path = folder / name
        try:
            text = read_inside(folder, name).decode("utf-8")
        except FileNotFoundError:
            continue
        except UnusableError as error:
            raise ProblemError(
                Problem(Place(path), f"{name} {error}", "put the patterns into an ordinary file")
            ) from error
        except UnicodeDecodeError as error:
            raise ProblemError(Problem(Place(path), f"{name} is not UTF-8", "save it as UTF-8 text")) from error
        return Ignore((*own, *patterns(text, Place(path))), path)
    return Ignore(own)


def patterns(text: str, place: Place) -> list[Pattern]:
    """Parse patterns, one a line. place: their file or, for those of ``--exclude``, a line. Raises ProblemError."""
    found: list[Pattern] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        written = line.strip()
        if line.startswith("#") or not written:
            continue
        exception = written.startswith("!")
        cleaned = posixpath.normpath(written.removeprefix("!").strip() or ".").lstrip("/")
        parts = tuple(cleaned.split("/"))
        if cleaned in ("", "."):
            if exception or written not in (".", "/", "./"):
                continue
            parts = (ANY_FOLDERS,)
        try:
            for one in _variants(parts):
                for each in one:
                    part(each)
                found.append(Pattern(one, exception))
        except PatternError as error:
            raise ProblemError(Problem(_at(place, number), f"the pattern {written!a} {error}", "correct it")) from error
        if len(found) > _MOST_PATTERNS or len(parts) > _MOST_PARTS:
            remedy = f"write at most {_MOST_PATTERNS} patterns of at most {_MOST_PARTS} parts"
            raise ProblemError(Problem(_at(place, number), "the file has too many patterns", remedy))
    return found


def _at(place: Place, number: int) -> Place:
    return place if place.line else Place(place.path, number)


def _variants(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return patterns that together match the same paths, and have `**` only as a part of its own.

    ``a**b`` is ``a*b`` or ``a*/**/*b``.
    """
    for index, one in enumerate(parts):
        if ANY_FOLDERS in one and one != ANY_FOLDERS:
            before, _, after = one.partition(ANY_FOLDERS)
            if ANY_FOLDERS in after or "\\" in one:
                raise PatternError("has ** twice in one part")
            head, tail = parts[:index], parts[index + 1 :]
            narrow = (*head, f"{before}*{after}", *tail)
            wide = (*head, f"{before}*", ANY_FOLDERS, f"*{after}", *tail)
            return [*_variants(narrow), *_variants(wide)]
    return [parts]

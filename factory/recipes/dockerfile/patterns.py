r"""The two kinds of patterns of Docker builds: sources of COPY, and the lines of `.dockerignore`.

Sources follow Go's filepath.Match: `*` and `?` match no slash, `[a-z]` and `[^a-z]` are classes, `\` quotes a
character, and hidden files match, too. Lines of `.dockerignore` follow github.com/moby/patternmatcher, where `**`
matches any number of folders. A pattern is matched in linear time, whatever it contains.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WILD = frozenset("*?[")
_LONGEST = 4096  # characters of a path
_MOST_LINES = 2000


class PatternError(ValueError):
    """A pattern that cannot be understood. The message says why."""


@dataclass(frozen=True)
class _Part:
    """What a pattern expects next: one of the letters (or none of them), or any text. slash: it can contain slashes."""

    letters: frozenset[str] = frozenset()
    is_negated: bool = False
    is_many: bool = False
    slash: bool = False
    is_folders: bool = False  # nothing, or any text that ends with a slash


def has_wildcards(source: str) -> bool:
    """Return whether a source of COPY is a pattern."""
    return bool(_WILD & set(source)) or "\\" in source


class Pattern:
    """A pattern of one kind. Raises PatternError."""

    def __init__(self, text: str, *, folders: bool) -> None:
        self._parts = tuple(_parts(text, folders=folders))

    def matches(self, path: str) -> bool:
        """Return whether the whole path matches."""
        if len(path) > _LONGEST:
            return False
        everywhere = (1 << (len(path) + 1)) - 1
        places = _Places(path)
        positions = 1
        for part in self._parts:
            if part.is_folders:  # stays, or goes on after any later slash
                lowest = positions & -positions
                after = (places.of("/") << 1) & ~((lowest << 1) - 1)
                positions |= after
            elif part.is_many:
                positions = _spread(positions, places, everywhere, slash=part.slash)
            else:
                positions = (positions & places.fitting(part, everywhere)) << 1
            if not positions:
                return False
        return bool(positions >> len(path) & 1)


def _spread(positions: int, places: _Places, everywhere: int, *, slash: bool) -> int:
    """Return the positions after any text, which without slash contains no slash."""
    if slash:
        return everywhere & -(positions & -positions)
    walls = places.of("/")
    found = 0
    while positions:
        lowest = positions & -positions
        ahead = walls & -lowest  # the next slash ends the text; a position on it stays
        end = (ahead & -ahead) if ahead else (everywhere + 1) >> 1
        reached = ((end << 1) - 1) & ~(lowest - 1)
        found |= reached
        positions &= ~reached
    return found


class _Places:
    """The positions of letters in a path, as the bits of an integer."""

    def __init__(self, path: str) -> None:
        self._found: dict[str, int] = {}
        for index, letter in enumerate(path):
            self._found[letter] = self._found.get(letter, 0) | (1 << index)

    def of(self, letter: str) -> int:
        return self._found.get(letter, 0)

    def fitting(self, part: _Part, everywhere: int) -> int:
        found = 0
        for letter in part.letters:
            found |= self._found.get(letter, 0)
        return (everywhere >> 1) & ~found & ~self.of("/") if part.is_negated else found


def _parts(text: str, *, folders: bool) -> Iterator[_Part]:
    at = 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "*" and folders and text[at : at + 1] == "*":
            at += 1
            if text[at : at + 1] == "/":
                at += 1
                yield _Part(is_folders=True)
            elif at == len(text):
                yield _Part(is_many=True, slash=True)
            else:
                yield _Part(is_folders=True)
        elif letter == "*":
            yield _Part(is_many=True)
        elif letter == "?":
            yield _Part(is_negated=True)
        elif letter == "[":
            part, at = _class(text, at)
            yield part
        elif letter == "\\":
            if at == len(text):
                raise PatternError("it ends with \\")
            yield _Part(frozenset(text[at]))
            at += 1
        else:
            yield _Part(frozenset(letter))


def _class(text: str, at: int) -> tuple[_Part, int]:
    """Read a class such as `[a-z]`, after its bracket."""
    negated = text[at : at + 1] == "^"
    at += negated
    letters: set[str] = set()
    first = True
    while first or text[at : at + 1] != "]":
        first = False
        low, at = _class_letter(text, at)
        high = low
        if text[at : at + 1] == "-":
            high, at = _class_letter(text, at + 1)
        if ord(high) - ord(low) > 10_000:  # noqa: PLR2004 - bounds memory; no alphabet is larger
            raise PatternError("its class is too large")
        letters.update(chr(code) for code in range(ord(low), ord(high) + 1))
    return _Part(frozenset(letters), negated), at + 1


def _class_letter(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] == "\\":
        at += 1
    if at >= len(text) or (text[at] in "-]" and text[at - 1] != "\\"):
        raise PatternError("its class [...] has no end")
    return text[at], at + 1


@dataclass(frozen=True)
class Ignore:
    """The lines of a `.dockerignore`, each a pattern, and whether it leaves out or brings back."""

    lines: tuple[tuple[Pattern, bool], ...] = ()

    def leaves_out(self, path: str) -> bool:
        """Return whether a path of the context is left out. The last line that matches it, or a folder above, counts."""
        above = [path]
        while "/" in path:
            path = path.rpartition("/")[0]
            above.append(path)
        found = False
        for pattern, brings_back in self.lines:
            if found == brings_back and any(pattern.matches(one) for one in above):
                found = not brings_back
        return found


def ignore(text: str) -> Ignore:
    """Parse a `.dockerignore`, or the patterns of ``--exclude``, one a line. Raises PatternError."""
    lines: list[tuple[Pattern, bool]] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        written = "" if line.startswith("#") else line.strip()
        brings_back = written.startswith("!")
        written = written[brings_back:].strip()
        if not written:
            continue
        if len(lines) >= _MOST_LINES:
            raise PatternError(f"line {number}: there are more than {_MOST_LINES} patterns")
        cleaned = posixpath.normpath(re.sub(r"/+", "/", written)).lstrip("/")
        if cleaned in ("", "."):
            continue
        try:
            lines.append((Pattern(cleaned, folders=True), brings_back))
        except PatternError as error:
            raise PatternError(f"line {number}: {written}: {error}") from error
    return Ignore(tuple(lines))

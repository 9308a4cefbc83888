"""Patterns in variables of a Dockerfile, as in `${name#pattern}` and `${name/pattern/text}`, with bounded work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST_MATCHED = 4096  # characters of a value


class WordError(ValueError):
    """A text that Docker refuses to expand. The message continues "…: "."""


@dataclass
class Work:
    """What may still be spent on the expansions of a file: characters of values, steps of patterns."""

    characters: int = 4_000_000
    steps: int = 2_000_000

    def spend(self, characters: int = 0, steps: int = 0) -> None:
        """Count work. Raises WordError when there is too much."""
        self.characters -= characters
        self.steps -= steps
        if self.characters < 0 or self.steps < 0:
            raise WordError("the variables of this file are too large or too many")


_ANY_LETTER, _ANY_TEXT = "?", "*"
_Pattern = list[tuple[str, bool]]  # characters; True: a wildcard


def _pattern(text: str) -> _Pattern:
    """Return a pattern as characters and wildcards. Raises WordError."""
    found: _Pattern = []
    letters = iter(text)
    for letter in letters:
        if letter != "\\":
            found.append((letter, letter in (_ANY_LETTER, _ANY_TEXT)))
            continue
        escaped = next(letters, "")
        if escaped not in ("*", "?", "\\", "}", "/") or not escaped:
            raise WordError(f"the pattern {text} has an unknown escape \\{escaped}")
        found.append((escaped, False))
    return found


class Matcher:
    """Finds a pattern in a text. The set of positions is an integer, so that a step costs one machine operation."""

    def __init__(self, text: str, work: Work) -> None:
        """text: what is searched. work: counts the steps. Raises WordError for a long text."""
        if len(text) > _LONGEST_MATCHED:
            raise WordError(f"patterns apply to values of at most {_LONGEST_MATCHED} characters")
        self._text = text
        self._work = work

    def trimmed(self, pattern: str, *, greedy: bool, at_end: bool) -> str:
        """Return the text without the shortest or longest beginning or end that matches the pattern."""
        parts = _pattern(pattern)
        if not at_end:
            end = self._end(self._places(self._text), parts, 0, greedy=greedy)
            return self._text if end is None else self._text[end:]
        end = self._end(self._places(self._text[::-1]), parts[::-1], 0, greedy=greedy)
        return self._text if end is None else self._text[: len(self._text) - end]

    def replaced(self, pattern: str, replacement: str, *, every: bool) -> str:
        """Return the text with the first match of the pattern replaced, or every one. Matches are the longest."""
        parts, places, text = _pattern(pattern), self._places(self._text), self._text
        found: list[str] = []
        at, kept = 0, 0  # the next position to try, and the end of what is in found
        while at <= len(text):
            end = self._end(places, parts, at, greedy=True)
            if end is None or (end == at == kept and found):  # no match, or an empty one right after another
                at += 1
                continue
            self._work.spend(characters=len(replacement))
            found += [text[kept:at], replacement]
            kept, at = end, max(end, at + 1)
            if not every:
                break
        return "".join([*found, text[kept:]])

    def _places(self, text: str) -> dict[str, int]:
        """Return the positions of each character as the bits of an integer."""
        places: dict[str, int] = {}
        for index, letter in enumerate(text):
            places[letter] = places.get(letter, 0) | (1 << index)
        self._work.spend(steps=len(text))
        return places

    def _end(self, places: Mapping[str, int], pattern: _Pattern, start: int, *, greedy: bool) -> int | None:
        """Return the position after the shortest or longest match that begins at start, None if there is none."""
        everywhere = (1 << (len(self._text) + 1)) - 1
        positions = 1 << start
        for letter, is_wildcard in pattern:
            self._work.spend(steps=1)
            if not is_wildcard:
                positions = (positions & places.get(letter, 0)) << 1
            elif letter == _ANY_LETTER:
                positions = (positions << 1) & everywhere
            else:
                positions = everywhere & -(positions & -positions)
            if not positions:
                return None
        return positions.bit_length() - 1 if greedy else (positions & -positions).bit_length() - 1

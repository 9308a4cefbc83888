"""Patterns of COPY, ADD and .dockerignore, matched in linear time: patterns and names can be untrusted.

Specification: Go's path/filepath.Match for a part of a path, and github.com/moby/patternmatcher for `**`.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAGIC = re.compile(r"[*?\[\\]")
ANY_FOLDERS = "**"
_LONGEST = 1000  # characters; a file name has at most 255


class PatternError(ValueError):
    """A pattern that Docker refuses. The message continues the pattern."""


@lru_cache(maxsize=4096)
def part(pattern: str) -> re.Pattern[str]:
    """Return the expression for one part of a path: `*`, `?`, `[a-z]`, `[^a-z]` and backslash. Raises PatternError.

    Between two stars, the first place that matches is the right one, so nothing is tried twice: each piece is in a
    lookahead, into which Python does not return (as in fnmatch.translate).
    """
    if len(pattern) > _LONGEST:
        raise PatternError(f"has more than {_LONGEST} characters between two slashes")
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            pieces.append([])
        elif letter == "?":
            pieces[-1].append(".")
        elif letter == "[":
            text, at = _class(pattern, at)
            pieces[-1].append(text)
        elif letter == "\\":
            if at == len(pattern):
                raise PatternError("ends with a backslash")
            pieces[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            pieces[-1].append(re.escape(letter))
    first, *middle = ["".join(piece) for piece in pieces]
    if not middle:
        return re.compile(rf"(?s:{first})\Z")
    *between, last = middle
    lookaheads = "".join(
        f"(?=(?P<p{number}>.*?{piece}))(?P=p{number})" for number, piece in enumerate(between) if piece
    )
    return re.compile(rf"(?s:{first}{lookaheads}.*{last})\Z")


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Return the expression of `[…]` whose content starts at a position, and the position after it."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    found: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and found:
            break
        low, at = _letter(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _letter(pattern, at + 1)
        if low <= high:  # else the range is empty
            found.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            found.append("")
    ranges = "".join(found)
    if not ranges:
        return (".", at + 1) if negated else ("(?!)", at + 1)
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _letter(pattern: str, at: int) -> tuple[str, int]:
    letter = pattern[at : at + 1]
    if letter == "\\":
        at += 1
        letter = pattern[at : at + 1]
    elif letter in ("-", "]"):
        raise PatternError("has a wrong character class")
    if not letter:
        raise PatternError("has a character class without ]")
    return letter, at + 1

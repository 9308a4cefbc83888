"""One line of a `%files` section: what is copied, and where to."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The negative look-ahead leaves one way only to read a template, and so no room for endless backtracking.
_WORD = re.compile(r"""\s*(?:"([^"]*)"|((?:\{\{\s*\w+\s*\}\}|(?!\{\{\s*\w+\s*\}\})[^\s"'])+))(?=\s|$)""", re.ASCII)
_TEMPLATE = re.compile(r"\{\{\s*\w+\s*\}\}", re.ASCII)
_AMBIGUOUS = re.compile(r"\{\{|[^\S ]")
_SOURCE_AND_DESTINATION = 2


@dataclass(frozen=True)
class Copy:
    """A source and a destination; without a destination the source's own path is used."""

    source: str
    destination: str
    line: int


def parse_copy(text: str, line: int) -> Copy | str | None:
    """Read one line of `%files`: a Copy, None for a blank or comment line, or what is wrong with it.

    Apptainer knows double quotes only, and drops what follows the destination without a word; here
    nothing but a comment may follow.
    """
    text = text.strip()
    words, end = _words(text)
    if end is None:
        return "a quote stands in the middle of a word, is single, or is not closed"
    if not words:
        return None
    if len(words) == 1 and end < len(text):
        return "Apptainer takes a comment after a source for the destination"
    return _wrong(words) or Copy(words[0], words[1] if len(words) == _SOURCE_AND_DESTINATION else "", line)


def _words(text: str) -> tuple[list[str], int | None]:
    """The words up to a comment, and where they end; None when they cannot be told apart."""
    words: list[str] = []
    position = 0
    while position < len(text) and text[position] != "#":
        match = _WORD.match(text, position)
        if match is None:
            return words, None
        words.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        while position < len(text) and text[position] in " \t":
            position += 1
    return words, position


def _wrong(words: list[str]) -> str:
    if len(words) > _SOURCE_AND_DESTINATION:
        return f"{len(words)} words, where a source and a destination are wanted"
    if not words[0]:
        return "the source is empty"
    if any(_AMBIGUOUS.search(_TEMPLATE.sub("", word)) for word in words):
        return "{{ or a blank other than a space stands in a word, which Apptainer takes apart elsewhere"
    return _wrong_destination(words[-1]) if len(words) == _SOURCE_AND_DESTINATION else ""


def _wrong_destination(path: str) -> str:
    """A destination is a path in the image as it stands: no shell reads it, and nothing is above the image's root."""
    if ".." in path.split("/"):
        return "the destination goes up by .."
    if "$" in path or path.startswith("~"):
        return "the destination holds $ or begins with ~, which nothing replaces there"
    return ""

"""The lines of a `%files` section: a source and its destination."""

from __future__ import annotations

import re
from dataclasses import dataclass

from factory.recipes.characters import described, find_hidden

# The negative look-ahead makes the match of a template unambiguous, which prevents exponential backtracking.
_WORD = re.compile(r"""\s*(?:"([^"]*)"|((?:\{\{\s*\w+\s*\}\}|(?!\{\{\s*\w+\s*\}\})[^\s"'])+))(?=\s|$)""", re.ASCII)
_TEMPLATE = re.compile(r"\{\{\s*\w+\s*\}\}", re.ASCII)
_BRACES = re.compile(r"\{\{")
_SOURCE_AND_DESTINATION = 2


@dataclass(frozen=True)
class Copy:
    """A source and a destination; an empty destination means the source's own path."""

    source: str
    destination: str
    line: int


def parse_copy(text: str, line: int) -> Copy | str | None:
    """Parse one line of `%files`: return a Copy, None for a blank or comment line, or an error message.

    Apptainer accepts only double quotes and silently ignores text after the destination. Here only a comment may
    follow the destination.
    """
    text = text.strip()
    words, end = _words(text)
    if end is None:
        return "a quote is unclosed, single, or in the middle of a word"
    if not words:
        return None
    if len(words) == 1 and end < len(text):
        return "Apptainer would read the comment after the source as the destination"
    return _wrong(words) or Copy(words[0], words[1] if len(words) == _SOURCE_AND_DESTINATION else "", line)


def _words(text: str) -> tuple[list[str], int | None]:
    """Return the words before a comment and the offset of their end, None if the quotes are wrong."""
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
        return f"the line has {len(words)} words, not a source and a destination"
    if not words[0]:
        return "the source is empty"
    plain = " ".join(_TEMPLATE.sub("", word) for word in words)
    if _BRACES.search(plain):
        return "a word contains {{"
    if (at := find_hidden(plain)) is not None:
        return f"a word contains {described(plain[at])}"
    return _wrong_destination(words[-1]) if len(words) == _SOURCE_AND_DESTINATION else ""


def _wrong_destination(path: str) -> str:
    """Return what is wrong with a destination. It is a literal path in the image: no shell expands it."""
    if ".." in path.split("/"):
        return "the destination contains .."
    if "$" in path or path.startswith("~"):
        return "the destination contains $ or begins with ~, which Apptainer does not expand there"
    return ""

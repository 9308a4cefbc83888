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
    words: list[str] = []
    line_of_words = text.strip()
    position = 0
    while position < len(line_of_words) and line_of_words[position] != "#":
        match = _WORD.match(line_of_words, position)
        if match is None:
            return "a quote stands in the middle of a word, is single, or is not closed"
        words.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        while position < len(line_of_words) and line_of_words[position] in " \t":
            position += 1
    if not words:
        return None
    if wrong := _wrong_with(words, commented=position < len(line_of_words)):
        return wrong
    return Copy(words[0], words[1] if len(words) == _SOURCE_AND_DESTINATION else "", line)


def _wrong_with(words: list[str], *, commented: bool) -> str:
    """Why these words are not a source and a destination; '' when they are. commented: a comment follows them."""
    if any(_AMBIGUOUS.search(_TEMPLATE.sub("", word)) for word in words):
        return "{{ or a blank other than a space stands in a word, which Apptainer takes apart elsewhere"
    if len(words) > _SOURCE_AND_DESTINATION:
        return f"{len(words)} words, where a source and a destination are wanted"
    if not words[0]:
        return "the source is empty"
    return "Apptainer takes a comment after a source for the destination" if len(words) == 1 and commented else ""

"""Characters that look like a space or like nothing, but are something else to engines and shells."""

from __future__ import annotations

import re
import unicodedata

# Tabs, control characters, spaces other than the plain one, and characters without a width.
_HIDDEN = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f\xad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# Control characters and characters that change the text direction (CVE-2021-42574) let engines, shells and terminals
# see something other than a reviewer sees. A carriage return may end a line.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
    r"|\r(?!\n|\Z)"
)
_COMMON = {
    " ": "a space",
    "\t": "a tab",
    "\n": "a line break",
    "\r": "a carriage return",
    "\xa0": "a no-break space (U+00A0)",
    "\u200b": "a zero-width space (U+200B)",
    "\ufeff": "a byte order mark (U+FEFF)",
}


def find_hidden(text: str) -> int | None:
    """Return the index of the first hidden character, None if there is none."""
    match = _HIDDEN.search(text)
    return match.start() if match else None


def find_unprintable(text: str) -> int | None:
    """Return the index of the first character that a file of a recipe may not contain, None if there is none."""
    match = _UNPRINTABLE.search(text)
    return match.start() if match else None


def without_hidden(text: str) -> str:
    """Return what a reader sees: each hidden character becomes a space or, if it has no width, nothing."""
    return _HIDDEN.sub(lambda match: " " if match[0].isspace() else "", text)


def described(character: str) -> str:
    """Return a description for messages, such as ``a no-break space (U+00A0)``."""
    name = _COMMON.get(character)
    if name:
        return name
    return f"the character U+{ord(character):04X} ({unicodedata.name(character, 'a control character').lower()})"

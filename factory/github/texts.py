"""Texts that GitHub keeps: what fits, and the hidden line by which we find ours again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

BODY_LIMIT = 65_536  # characters of a comment, an issue or a pull request
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@ -]*[A-Za-z0-9]|[A-Za-z0-9]", re.ASCII)
_MARKER = re.compile(r"<!-- singfactory: ((?:(?!<!--).)+) -->")
_CUT = "\n\n_The rest is left out: GitHub takes no longer text._"


def cut_at_line(text: str, limit: int, size: Callable[[str], int] = len) -> str:
    """The longest beginning of whole lines within the limit, their line ends included; size: how a line counts."""
    kept, used = [], 0
    for line in text.splitlines(keepends=True):
        used += size(line)
        if used > limit:
            break
        kept.append(line)
    return "".join(kept)


def writable(text: str) -> str:
    """Text that UTF-8 can hold: names of files may bring halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def fitting(text: str, limit: int = BODY_LIMIT) -> str:
    """The text, or whole lines of it and a sentence that tells of the rest; limit: in characters.

    A single line that is too long is cut within.
    """
    text = writable(text)
    if len(text) <= limit:
        return text
    room = limit - len(_CUT)
    kept = cut_at_line(text, room).rstrip()
    return (kept or text[:room]) + _CUT


def marker(key: str) -> str:
    """The hidden first line of what we wrote about a key: an HTML comment, which Markdown does not show.

    A key that could end the comment early stands there as its digest.
    """
    plain = _PLAIN.fullmatch(key) is not None and "--" not in key
    return f"<!-- singfactory: {key if plain else 'sha256:' + hashlib.sha256(writable(key).encode()).hexdigest()} -->"


def marked(key: str, text: str) -> str:
    """A body for GitHub: the marker of the key, then as much of the text as fits."""
    head = marker(key) + "\n"
    return head + fitting(text, BODY_LIMIT - len(head))


def carries(key: str, body: str | None) -> bool:
    """True for a body whose first line is the key's marker; a marker further down is a quotation."""
    lines = (body or "").split("\n", 1)
    return lines[0].strip() == marker(key)


def key_of(body: str | None) -> str:
    """The key in the first line of a body of ours, or its digest; '' when there is none."""
    match = _MARKER.fullmatch((body or "").split("\n", 1)[0].strip())
    return match[1] if match else ""


def same(one: str | None, other: str | None) -> bool:
    """True for texts that differ in nothing but line ends, which GitHub changes, and space around them."""
    first, second = ((text or "").replace("\r\n", "\n").strip() for text in (one, other))
    return first == second

"""Texts posted to GitHub: length limits, and the hidden marker line that identifies them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

BODY_LIMIT = 65_536  # characters in a comment, an issue or a pull request
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@ -]*[A-Za-z0-9]|[A-Za-z0-9]", re.ASCII)
_MARKER = re.compile(r"<!-- singfactory: ((?:(?!<!--).)+) -->")
_CUT = "\n\n_Truncated: GitHub accepts no longer text._"


def cut_at_line(text: str, limit: int, size: Callable[[str], int] = len) -> str:
    """Return the longest prefix of whole lines within the limit, line ends included. size: measures a line."""
    kept, used = [], 0
    for line in text.splitlines(keepends=True):
        used += size(line)
        if used > limit:
            break
        kept.append(line)
    return "".join(kept)


def writable(text: str) -> str:
    """Return the text with lone surrogates, which come from file names, replaced."""
    return text.encode("utf-8", "replace").decode()


def fitting(text: str, limit: int = BODY_LIMIT) -> str:
    """Return the text, cut at a line end with a note if it is longer than limit characters.

    A single line that is too long is cut within the line.
    """
    text = writable(text)
    if len(text) <= limit:
        return text
    room = limit - len(_CUT)
    kept = cut_at_line(text, room).rstrip()
    return (kept or text[:room]) + _CUT


def marker(key: str) -> str:
    """Return the hidden first line of a text about a key: an HTML comment, which Markdown does not show.

    A key that could end the comment early is replaced by its digest.
    """
    plain = _PLAIN.fullmatch(key) is not None and "--" not in key
    return f"<!-- singfactory: {key if plain else 'sha256:' + hashlib.sha256(writable(key).encode()).hexdigest()} -->"


def marked(key: str, text: str) -> str:
    """Return a body for GitHub: the key's marker, then as much of the text as fits."""
    head = marker(key) + "\n"
    return head + fitting(text, BODY_LIMIT - len(head))


def carries(key: str, body: str | None) -> bool:
    """True if the first line of a body is the key's marker; a marker further down is a quotation."""
    lines = (body or "").split("\n", 1)
    return lines[0].strip() == marker(key)


def key_of(body: str | None) -> str:
    """Return the key (or its digest) in the first line of a body; '' if there is none."""
    match = _MARKER.fullmatch((body or "").split("\n", 1)[0].strip())
    return match[1] if match else ""


def same(one: str | None, other: str | None) -> bool:
    """True if two texts differ only in line ends, which GitHub changes, and surrounding whitespace."""
    first, second = ((text or "").replace("\r\n", "\n").strip() for text in (one, other))
    return first == second

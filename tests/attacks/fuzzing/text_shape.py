"""Text, changed by lines and by letters."""

from __future__ import annotations

import random

from tests.attacks.fuzzing.nasty import TEXTS, size, some

_ODD = (
    b"\0",
    b"\r",
    b"\x1b[31m",
    b"\x9b",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u2028".encode(),
    "²".encode(),
    b"\t",
    b"\\",
    b'"',
    b"%",
    b"#",
    b"\xc0\x80",
    "\u202e".encode(),
    b"{{ ",
    b" }}",
    b"=",
    b",",
    b"<",
    b">",
    b";",
    b":",
    b"[",
    b"]",
)


def changed(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    """A text with one to six things changed."""
    for _ in range(chance.randrange(1, 7)):
        content = _by_lines(chance, content, words) if chance.random() < 0.5 else _by_letters(chance, content, words)
    return content[: 4 << 20]


def _by_lines(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    kind = chance.randrange(6)
    if kind == 0:
        lines[at : at + 1] = [lines[at]] * min(size(chance), 1 + 1_000_000 // (1 + len(lines[at])))
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(at, _word(chance, words))
    elif kind == 3:
        other = chance.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 4:
        lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    else:
        lines[at] += _word(chance, words)
    return b"\n".join(lines)


def _by_letters(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    at = chance.randrange(len(content) + 1)
    to = min(len(content), at + chance.randrange(1, 12))
    kind = chance.randrange(6)
    if kind == 0:
        return content[:at] + _word(chance, words) + content[at:]
    if kind == 1:
        return content[:at] + _word(chance, words) + content[to:]
    if kind == 2:
        return content[:at] + content[to:]
    if kind == 3:
        return content[:at] + content[at:to] * size(chance) + content[to:]
    if kind == 4:
        return content[:at] + bytes([chance.randrange(256)]) + content[to:]
    return content[:at]


def _word(chance: random.Random, words: tuple[bytes, ...]) -> bytes:
    kind = chance.random()
    if words and kind < 0.55:
        return some(chance, words)
    if kind < 0.8:
        return some(chance, _ODD)
    return some(chance, TEXTS).encode("utf-8", "surrogatepass")[:5000]

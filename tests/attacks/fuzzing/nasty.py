"""Values that parsers stumble over."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")

TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "a",
    "\0",
    "\n",
    "\r\n",
    "\x1b[31m",
    "\x9b31m",
    "\x7f",
    "\u202e",
    "\ufeff",
    "é",
    "文件",
    "\U0001f600",
    "\ud800",
    "\udfff x",
    "²",
    "١٢",
    "..",
    "../../etc/passwd",
    "/",
    "//",
    "~",
    "-",
    "--registry=x",
    "%00",
    "%s",
    "{0}",
    "{{ x }}",
    "'",
    '"',
    "`id`",
    "$(id)",
    "${HOME}",
    "a:b",
    "@",
    "#",
    "sha256:",
    "sha256:" + "0" * 64,
    "sha512:" + "f" * 128,
    "sha256:" + "A" * 64,
    "sha256:" + "0" * 63 + "\n",
    "1.0-1",
    "1.0-0",
    "1.0-999999999",
    "1.0-9999999999",
    "latest",
    "http://127.0.0.1:1/x",
    "https://[::1",
    "https://[",
    "http://a@b/",
    "http://:0/",
    "http://h:99999/",
    "oci:",
    "oci:/",
    "file:///",
    "2024-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0000-00-00",
    "2024-01-01T00:00:00+99:99",
    "1e999",
    "NaN",
    "inf",
    "0x10",
    "true",
    "null",
    "[]",
    "{}",
    '{"a": 1}',
    '{"size": 1e999}',
    "[" * 3000,
    "a" * 300,
    "a" * 5000,
    "x" * 200_000,
    "é" * 3000,
    "(" * 200,
    "a/" * 2000,
    "a." * 2000,
    "9" * 30,
    "9" * 400,
    "9" * 5000,
    "\\",
    "\\ud800",
    "-" * 3000,
    "\t",
    "\u2028",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    16,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**31),
    -(2**63),
    10**18,
    10**19,
    10**30,
    10**308,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
)
DIGITS = "9" * 5000  # more than Python turns into a number


def some(chance: random.Random, items: Sequence[_T]) -> _T:
    """One of them."""
    return items[chance.randrange(len(items))]


def size(chance: random.Random) -> int:
    """A count: mostly small."""
    return some(chance, (1, 1, 2, 3, 8, 64, 1000)) if chance.random() < 0.94 else some(chance, (5000, 20_000, 100_000))


def bent(chance: random.Random, text: str) -> str:
    """A text, changed in one place."""
    at = chance.randrange(len(text) + 1)
    to = min(len(text), at + chance.randrange(1, 6))
    kind = chance.randrange(6)
    if kind == 0:
        return text[:at] + some(chance, TEXTS) + text[at:]
    if kind == 1:
        return text[:at] + some(chance, TEXTS)[:40] + text[to:]
    if kind == 2:
        return text[:at] + text[to:]
    if kind == 3:
        return text[:at] + text[at:to] * size(chance) + text[to:]
    if kind == 4:
        return text[:at] + chr(chance.randrange(0x250)) + text[to:]
    return text.swapcase()

"""TOML that almost is what it should be: changed as values, and as lines."""

from __future__ import annotations

import json
import random
from typing import Any

from factory.recipes.toml.lines import tomllib
from tests.attacks.fuzzing import text_shape
from tests.attacks.fuzzing.nasty import DIGITS, NUMBERS, TEXTS, bent, size, some

RAW = (
    "1e999",
    "inf",
    "-inf",
    "nan",
    "0x" + "f" * 40,
    DIGITS,
    "1_000",
    "1979-05-27",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "0o7",
    "0b1",
    "9999-12-31T23:59:59+23:59",
    '"\\u0000"',
    '"\\uD800"',
    "'" + "'",
    '"""' + "\n" * 50 + '"""',
    "[" * 300 + "]" * 300,
    "[" * 20_000,
    "{a = " * 300 + "1" + "}" * 300,
    "{}",
    "[]",
    "[[], {}]",
    "true",
    "-0.0",
    "{ a.b.c = 1 }",
    "'''x'''",
)
LINES = (
    "[a]",
    "[[test]]",
    "[recipe]",
    "[build.args]",
    "[build.args.x]",
    "x.y.z = 1",
    ".".join("a" * 500) + " = 1",
    "[" + ".".join("a" * 500) + "]",
    "\n".join(f"k{number}.a.b = 1" for number in range(500)),
    "\n".join(["[[t]]"] * 3000),
    '"" = 1',
    '"\\n" = 1',
    "= 1",
    "#" * 3000,
    "\0",
    "\r",
    "a = [\n" + "1,\n" * 500 + "]",
    'x = """' + '"' * 30,
    "x = '''" + "'" * 30,
    "".join(f"[t{number}]\n" for number in range(3000)),
    '"a" . "b" = 1',
)


def changed(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    """A document with one to five things changed."""
    try:
        value = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        return text_shape.changed(chance, content, words)
    if chance.random() < 0.35:
        return text_shape.changed(chance, content, tuple(line.encode() for line in (*LINES, *RAW)))
    for _ in range(chance.randrange(1, 6)):
        _change(chance, value)
    try:
        return _document(value).encode("utf-8", "replace")
    except RecursionError:
        return content


class _Raw(str):
    __slots__ = ()


def _change(chance: random.Random, table: dict[str, Any]) -> None:
    if not table:
        table[bent(chance, "key")[:200]] = _any(chance)
        return
    key = some(chance, list(table))
    value = table[key]
    kind = chance.random()
    if isinstance(value, dict) and kind < 0.6:
        _change(chance, value)
    elif isinstance(value, list) and value and kind < 0.6:
        at = chance.randrange(len(value))
        if isinstance(value[at], dict) and chance.random() < 0.8:
            _change(chance, value[at])
        elif chance.random() < 0.5:
            value[at] = _any(chance)
        else:
            value.extend([value[at]] * min(size(chance), 20_000))
    elif kind < 0.68:
        del table[key]
    elif kind < 0.74:
        table[bent(chance, key)[:3000]] = value
    elif kind < 0.78:
        table.update((f"{key}-{number}", 1) for number in range(min(size(chance), 20_000)))
    elif isinstance(value, str):
        table[key] = bent(chance, value) if chance.random() < 0.6 else _any(chance)
    else:
        table[key] = _any(chance)


def _any(chance: random.Random) -> Any:
    kind = chance.randrange(5)
    if kind == 0:
        return some(chance, NUMBERS)
    if kind == 1:
        return _Raw(some(chance, RAW))
    if kind == 2:
        return [some(chance, TEXTS)[:300], some(chance, TEXTS)[:300]]
    if kind == 3:
        return {some(chance, TEXTS)[:100]: some(chance, TEXTS)[:100]}
    return some(chance, TEXTS)


def _document(value: dict[str, Any]) -> str:
    plain = [f"{_key(key)} = {_value(inner)}" for key, inner in value.items() if not isinstance(inner, dict)]
    tables = [
        f"[{_key(key)}]\n" + "\n".join(f"{_key(name)} = {_value(one)}" for name, one in inner.items())
        for key, inner in value.items()
        if isinstance(inner, dict)
    ]
    return "\n".join([*plain, *tables]) + "\n"


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "a").replace("-", "a").isalnum() else _string(key)


def _string(text: str) -> str:
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    return str(value)

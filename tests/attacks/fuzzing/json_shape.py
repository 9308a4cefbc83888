"""JSON that almost is what it should be: values of other types, numbers without end, twice the same key, deep nests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.attacks.fuzzing.nasty import DIGITS, NUMBERS, TEXTS, bent, size, some


class Raw(str):
    """What is written as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object, in which a key may stand twice."""


RAW = (
    Raw("1e999"),
    Raw("-1e999"),
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    Raw("1E-999"),
    Raw(DIGITS),
    Raw("-" + DIGITS),
    Raw("0." + DIGITS),
    Raw("9" * 400),
    Raw("1e400"),
    Raw("1.0"),
    Raw("01"),
    Raw('"\\ud800"'),
    Raw('"\\udc00\\ud800"'),
    Raw('"\\u0000"'),
    Raw("[" * 100_000),
    Raw("[" * 900 + "]" * 900),
    Raw("[" * 50_000 + "]" * 50_000),
    Raw('{"a":' * 900 + "1" + "}" * 900),
    Raw('{"a":' * 30_000 + "1" + "}" * 30_000),
    Raw(""),
    Raw('"'),
    Raw("\ufeff{}"),
)


_ROOM = 600_000  # letters that copies may take


class _Chance(random.Random):
    """Also knows how many letters copies may still take, since each may be copied again."""

    room = _ROOM

    def copies(self, value: Any) -> int:
        """How often a value may be repeated."""
        wanted = size(self)
        count = min(wanted, self.room // (1 + len(_write(value)))) if self.room else 0
        self.room = self.room // 2 if count else 0
        return count


def changed(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    """A document with one to five things changed."""
    del words
    chance = _Chance(chance.getrandbits(64))
    try:
        value = _read(content)
        for _ in range(chance.randrange(1, 6)):
            value = _changed(chance, value)
        return _write(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return content


def _read(content: bytes | str) -> Any:
    return json.loads(content, object_pairs_hook=Pairs)


def _changed(chance: _Chance, value: Any) -> Any:
    """The value with one place in it changed; deeper places are as likely as the ones above them."""
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        if isinstance(value, Pairs):
            key, inner = value[at]
            return Pairs([*value[:at], *_entry(chance, key, inner, value), *value[at + 1 :]])
        return [*value[:at], *_item(chance, value[at]), *value[at + 1 :]]
    return _other(chance, value)


def _entry(chance: _Chance, key: str, inner: Any, all_of_it: Pairs) -> list[tuple[str, Any]]:
    kind = chance.random()
    if kind < 0.08:
        return []
    if kind < 0.14:
        return [(key, inner), (key, _other(chance, inner))]
    if kind < 0.22:
        return [(bent(chance, key), inner)]
    if kind < 0.27:
        return [(key, inner), *((f"{key}{number}", inner) for number in range(chance.copies(Pairs([(key, inner)]))))]
    if kind < 0.32:
        return [(key, some(chance, all_of_it)[1])]
    return [(key, _changed(chance, inner))]


def _item(chance: _Chance, inner: Any) -> list[Any]:
    kind = chance.random()
    if kind < 0.08:
        return []
    if kind < 0.2:
        return [inner] * (1 + chance.copies(inner))
    return [_changed(chance, inner)]


def _other(chance: _Chance, value: Any) -> Any:
    """Something else in the place of a value, more often of its own type than not."""
    if isinstance(value, str) and not isinstance(value, Raw) and chance.random() < 0.7:
        return _other_text(chance, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.6:
        return some(chance, RAW[:11]) if chance.random() < 0.4 else some(chance, NUMBERS)
    wild: list[Callable[[], Any]] = [
        lambda: None,
        lambda: True,
        lambda: some(chance, NUMBERS),
        lambda: some(chance, RAW),
        lambda: some(chance, TEXTS),
        list,
        Pairs,
        lambda: [value],
        lambda: Pairs([(some(chance, TEXTS)[:100], value)]),
        lambda: [[]] * size(chance),
    ]
    return some(chance, wild)()


def _other_text(chance: _Chance, text: str) -> str:
    if text.startswith(("{", "[")) and chance.random() < 0.7:  # JSON in JSON, as annotations have it
        try:
            return _write(_changed(chance, _read(text)))
        except (ValueError, RecursionError):
            return text
    return bent(chance, text) if chance.random() < 0.6 else some(chance, TEXTS)


def _write(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{_string(key)}:{_write(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**4000 else DIGITS
    return json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=any("\ud800" <= letter <= "\udfff" for letter in text))

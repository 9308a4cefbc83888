"""Strict parsing of a JSON record that another job wrote.

Records are untrusted input: links are not followed, sizes are bounded, and every value must have the type, length and
characters that singfactory itself writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from factory import strict
from factory.io import plain
from factory.oci.digest import Digest

_SECONDS = 1e9  # thirty years
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_NAME_LIMIT = 60


class Record:
    """One JSON object. Each method raises ValueError for a wrong value; the message names the key, not the value."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError("not an object")  # noqa: TRY004 - one kind of error for all wrong input
        self._value: dict[str, Any] = value

    @classmethod
    def read(cls, path: Path, limit: int) -> Record:
        """Read a record from a file of at most limit bytes. Raises FileNotFoundError, ValueError, IntegrityFailure."""
        content = plain.read_plain(path, limit)
        try:
            return cls(strict.json_value(content, limit))
        except strict.Malformed as error:
            raise ValueError(error.why) from error

    def only(self, names: Iterable[str]) -> None:
        """Raise ValueError if the record has other keys than these."""
        if not self._value.keys() <= frozenset(names):
            raise ValueError("it has an unknown key")

    def text(self, name: str, most: int, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text of at most ``most`` printable characters. pattern: must match all of it."""
        found = self.output(name, most)
        if not found.isprintable() or (pattern is not None and pattern.fullmatch(found) is None):
            raise ValueError(f"{name} is malformed")
        return found

    def output(self, name: str, most: int) -> str:
        """Return a program's output: at most ``most`` characters of any kind that UTF-8 can encode."""
        found = self._get(name)
        if not isinstance(found, str) or len(found) > most or any("\ud800" <= letter <= "\udfff" for letter in found):
            raise ValueError(f"{name} is not a text of at most {most} characters")
        return found

    def size(self, name: str) -> int:
        """Return a number of bytes."""
        found = self._get(name)
        if type(found) is not int or not 0 <= found < 2**63:
            raise ValueError(f"{name} is not a size")
        return found

    def seconds(self, name: str) -> float:
        """Return a time span in seconds."""
        found = self._get(name)
        if type(found) not in (int, float) or not 0 <= found <= _SECONDS or not math.isfinite(found):
            raise ValueError(f"{name} is not a number of seconds")
        return float(found)

    def time(self, name: str) -> str:
        """Return a timestamp: ISO 8601, UTC, to the second."""
        found = self.text(name, 20, _TIME)
        datetime.strptime(found, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        return found

    def digest(self, name: str) -> Digest:
        """Return a digest. Also raises IntegrityFailure."""
        return Digest.parse(self._get(name))

    def texts(self, name: str, most: int, longest: int) -> Mapping[str, str]:
        """Return at most ``most`` texts by name, each of at most ``longest`` printable characters."""
        found = Record(self._get(name))
        names = found._value.keys()
        if len(names) > most or any(len(one) > _NAME_LIMIT or not one.isprintable() for one in names):
            raise ValueError(f"{name} is malformed")
        return {one: found.text(one, longest) for one in names}

    def records(self, name: str) -> tuple[Record, ...]:
        """Return a list of records."""
        found = self._get(name)
        if not isinstance(found, list):
            raise ValueError(f"{name} is not a list")  # noqa: TRY004 - as above
        return tuple(Record(one) for one in found)

    def value(self, name: str) -> object:
        """Return a value of any kind, which the caller must check."""
        found: object = self._get(name)
        return found

    def has(self, name: str) -> bool:
        """Return whether the record has this key."""
        return name in self._value

    def format(self, known: int) -> None:
        """Raise ValueError unless the record has this format number."""
        if type(self._value.get("format")) is not int or self._value["format"] != known:
            raise ValueError("it has an unknown format")

    def _get(self, name: str) -> Any:  # noqa: ANN401 - JSON values are of any type
        if name not in self._value:
            raise ValueError(f"{name} is missing")
        return self._value[name]

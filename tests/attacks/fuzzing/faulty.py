"""Targets that do what no parser may, to see that it is noticed."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.fuzzing.target import MIB, Target


def _bad(data: bytes, _place: Path) -> None:
    if b"crash" in data:
        raise KeyError("crash")
    if b"busy" in data:
        while True:
            pass
    if b"greedy" in data:
        bytearray(600 * MIB)


TARGETS = (
    Target(
        "faulty",
        _bad,
        lambda _: (b"sound", b"crash", b"greedy", b"busy", b"crash again", b"sound"),
        "text",
        seconds=0.5,
    ),
)

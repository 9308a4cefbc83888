from __future__ import annotations

import re
from datetime import timedelta

import pytest

from factory.recipes.quantities import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("40GB", 40 * 10**9),
        ("500MB", 5 * 10**8),
        ("1.5TB", 15 * 10**11),
        ("20GiB", 20 * 2**30),
        ("7B", 7),
        ("1 KB", 1000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "40", "GB", "-1GB", "40gb", "40GB\n", "0GB", "1e3GB", "\uff14GB", "1.GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text) + r"\Z"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("2m", timedelta(minutes=2)),
        ("1.5h", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
    ],
)
def test_durations_are_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-1h", "0s", "2h\n", "9999999999d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text) + r"\Z"):
        parse_duration(text)

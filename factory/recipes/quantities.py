"""Sizes and durations as written in `recipe.toml`."""

from __future__ import annotations

import re
from datetime import timedelta

_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([KMGT]i?)?B", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?([smhd])", re.ASCII)
_PREFIXES = "KMGT"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_size(text: str) -> int:
    """Parse ``40GB`` (powers of 1000) or ``20GiB`` (powers of 1024) into bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    prefix = match[2] or ""
    step = 1024 if prefix.endswith("i") else 1000
    power = _PREFIXES.index(prefix[0]) + 1 if prefix else 0
    size = round(float(match[1]) * float(step**power))
    if size == 0:
        raise ValueError(text)
    return size


def parse_duration(text: str) -> timedelta:
    """Parse ``90s``, ``2m``, ``1.5h`` or ``30d``; zero is refused. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    duration = timedelta(**{_UNITS[match[2]]: float(match[1])})
    if not duration:
        raise ValueError(text)
    return duration

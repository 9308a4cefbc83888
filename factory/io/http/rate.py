"""A limit on the total download rate of a Client."""

from __future__ import annotations

import threading
import time

_SLEEPS = 0.25  # seconds per pause; short pauses keep limited downloads even
_SMALLEST = 16 * 1024


class Rate:
    """A rate limit in bytes per second, shared by threads. limit None: unlimited.

    Unused capacity is not saved: after a pause, the rate does not exceed the limit.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the bytes taken so far have used up their time

    def block(self, largest: int) -> int:
        """Return how many bytes to read at a time, at most ``largest``; fewer for a low limit."""
        if self._limit is None:
            return largest
        return min(largest, max(_SMALLEST, int(self._limit * _SLEEPS)))

    def take(self, count: int) -> None:
        """Record count received bytes, and wait until the limit allows more."""
        if self._limit is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._limit
            wait = self._free_at - now
        time.sleep(wait)

"""A limit on the bytes a second that all downloads of a Client together may take."""

from __future__ import annotations

import threading
import time

_SLEEPS = 0.25  # seconds: how long a connection pauses at a time, so that limited downloads stay even
_SMALLEST = 16 * 1024


class Rate:
    """Bytes a second, shared by threads. limit None: as fast as it goes.

    What was not used is not saved up: after a pause nobody gets more than the limit.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._free_at = 0.0  # when all that was taken is paid for

    def block(self, largest: int) -> int:
        """How many bytes to read at a time, at most ``largest``: a slow rate wants small ones."""
        if self._limit is None:
            return largest
        return min(largest, max(_SMALLEST, int(self._limit * _SLEEPS)))

    def take(self, count: int) -> None:
        """Say that count bytes came; returns when the limit allows the next."""
        if self._limit is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._limit
            wait = self._free_at - now
        time.sleep(wait)

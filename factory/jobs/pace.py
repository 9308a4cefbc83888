"""How fast a source is, and when to look for a better one."""

from __future__ import annotations

import time

_WINDOW = 2.0  # seconds over which a speed is measured at first
_LONGEST = 60.0


class Backoff:
    """Says when to look around: after one second, then two, four, and so on."""

    def __init__(self) -> None:
        self._wait = 1.0
        self._at = time.monotonic() + self._wait

    def due(self) -> bool:
        """Return whether it is time to look again."""
        if time.monotonic() < self._at:
            return False
        self._wait *= 2
        self._at = time.monotonic() + self._wait
        return True


class Pace:
    """The speed of a source over the last seconds, in bytes per second."""

    def __init__(self) -> None:
        self.speed = 0.0
        self.periods = 0
        self._began = time.monotonic()
        self._size = 0
        self._wait = _WINDOW

    def arrived(self, size: int) -> None:
        """Count bytes."""
        self._size += size

    def due(self) -> bool:
        """Return whether a period has ended, whose speed is now known; the next one is longer."""
        passed = time.monotonic() - self._began
        if passed < self._wait:
            return False
        self.speed = self._size / passed
        self.periods += 1
        self._began, self._size, self._wait = time.monotonic(), 0, min(2 * self._wait, _LONGEST)
        return True

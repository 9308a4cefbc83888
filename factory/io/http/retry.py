"""The retry policy: bounded attempts, full jitter, a total time budget, and Retry-After."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from factory.io.http.failures import Trouble
from factory.io.http.settings import HttpSettings

_LONGEST_WAIT = 30.0
_NOTICE_FROM = 2.0  # seconds; shorter waits are not announced
_WITHOUT_CONNECTION = 3  # attempts if no connection was made, so that a wrong address does not cost minutes
_OUTAGES = 10  # how many outages of full length one request may survive, however many bytes arrive in between
_LONGEST_WAIT_IN_OUTAGE = 5.0


class Patience:
    """Counts consecutive failures of one request. ``progressed`` resets the count.

    flowed: whether the host has already sent or received content in this run. Then its address is right, and an outage
    is worth waiting for.
    """

    def __init__(
        self,
        settings: HttpSettings,
        host: str,
        notice: Callable[[str], None] = lambda _: None,
        flowed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._host = host
        self._notice = notice
        self._flowed = flowed
        self.failures = 0
        self._since = 0.0
        self._waited = 0.0  # seconds, in all outages

    def progressed(self) -> None:
        """Record that data arrived: the next failure is the first again."""
        self.failures = 0

    def moved(self) -> None:
        """Record that the last attempt made some progress: the time budget restarts, but attempts still count."""
        self._since = time.monotonic()

    def failed(self, trouble: Trouble, cause: BaseException | None = None, *, again: bool = True) -> None:
        """Wait before the next attempt, or raise HttpFailure if no more are allowed. again: False for the last one."""
        now = time.monotonic()
        if self.failures == 0:
            self._since = now
        self.failures += 1
        allowed = self._settings.attempts
        if not trouble.connected:
            allowed = min(allowed, _WITHOUT_CONNECTION)
        left = self._settings.budget - (now - self._since)
        if trouble.wait is not None and trouble.wait > left:
            raise self._come_back(trouble, trouble.wait) from cause
        wait = self._wait(trouble)
        if self.failures >= allowed and (patience := min(left, self._outage_left(trouble, now))) > 0:
            wait = min(wait, _LONGEST_WAIT_IN_OUTAGE, patience)
            self._waited += wait
            allowed = self.failures + 1
        if trouble.final or not again or self.failures >= allowed or wait > left:
            raise trouble.failure(self._host, self.failures) from cause
        if wait > _NOTICE_FROM:
            self._notice(f"{trouble.what}; trying again in {wait:.0f} s")
        time.sleep(wait)

    def _outage_left(self, trouble: Trouble, now: float) -> float:
        """Return how many more seconds to wait for a host that is away; 0 or less if it never was there."""
        if not trouble.away or not self._flowed():
            return 0.0
        outage = self._settings.outage
        return min(outage - (now - self._since), _OUTAGES * outage - self._waited)

    def _wait(self, trouble: Trouble) -> float:
        """Return the next wait: full jitter, so that clients do not retry at once, or what the server asked for."""
        longest = min(_LONGEST_WAIT, self._settings.backoff * 2.0 ** min(self.failures - 1, 20))
        jitter = random.uniform(0, longest)  # noqa: S311 - spreads load, not a secret
        return jitter if trouble.wait is None else trouble.wait + min(jitter, 0.1 * trouble.wait)

    def _come_back(self, trouble: Trouble, wait: float) -> Exception:
        when = time.strftime("%H:%M:%S" if wait < 12 * 3600 else "%Y-%m-%d %H:%M", time.localtime(time.time() + wait))
        return trouble.failure(
            self._host,
            self.failures,
            why=f"it asks for a wait of {wait:.0f} s, but a request may take at most {self._settings.budget:.0f} s",
            fix=f"try again after {when}",
        )

from __future__ import annotations

import time

import pytest

from factory.io.http.client import HttpFailure, HttpSettings
from factory.io.http.failures import Trouble
from factory.io.http.retry import Patience

AWAY = Trouble("x", connected=False)
GATEWAY = Trouble("x", status=502)


def attempts_of(patience: Patience, trouble: Trouble) -> int:
    def fail_forever() -> None:
        while True:
            patience.failed(trouble)

    with pytest.raises(HttpFailure) as caught:
        fail_forever()
    return caught.value.attempts


@pytest.mark.parametrize("trouble", [AWAY, GATEWAY], ids=["no connection", "a gateway"])
def test_a_host_that_content_came_from_is_waited_for(trouble: Trouble) -> None:
    settings = HttpSettings(attempts=2, outage=0.3, backoff=0.02)
    started = time.monotonic()
    count = attempts_of(Patience(settings, "h", flowed=lambda: True), trouble)
    assert 0.3 <= time.monotonic() - started < 5
    assert count > 3
    assert attempts_of(Patience(settings, "h", flowed=lambda: False), trouble) == 2


@pytest.mark.parametrize("trouble", [Trouble("x"), Trouble("x", status=500), Trouble("x", status=429)])
def test_only_a_host_that_is_away_is_waited_for(trouble: Trouble) -> None:
    settings = HttpSettings(attempts=2, backoff=0)
    assert attempts_of(Patience(settings, "h", flowed=lambda: True), trouble) == 2


def test_all_outages_of_a_request_are_bounded_together() -> None:
    patience = Patience(HttpSettings(attempts=1, outage=0.02, backoff=0.02), "h", flowed=lambda: True)

    def outages_without_end() -> None:
        while True:
            patience.failed(AWAY)
            patience.progressed()

    started = time.monotonic()
    with pytest.raises(HttpFailure):
        outages_without_end()
    assert 0.2 <= time.monotonic() - started < 5


def test_the_budget_also_ends_an_outage() -> None:
    settings = HttpSettings(attempts=1, outage=60, budget=0.2, backoff=0.02)
    started = time.monotonic()
    attempts_of(Patience(settings, "h", flowed=lambda: True), AWAY)
    assert time.monotonic() - started < 5

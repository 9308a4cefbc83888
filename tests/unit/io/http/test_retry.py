from __future__ import annotations

import socket
import time

import pytest

from factory.io.http.client import HttpFailure, HttpSettings
from factory.io.http.failures import Answer, Trouble, bad_status, explain, retry_after, safe_text
from factory.io.http.retry import Patience


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def failures_until_the_end(patience: Patience, trouble: Trouble) -> int:
    def fail_for_ever() -> None:
        while True:
            patience.failed(trouble)

    with pytest.raises(HttpFailure) as told:
        fail_for_ever()
    return told.value.attempts


def test_attempts_are_bounded_and_waits_are_jittered(slept: list[float]) -> None:
    assert failures_until_the_end(Patience(HttpSettings(attempts=6), "h"), Trouble("x")) == 6
    assert all(0 <= wait <= 2**number for number, wait in enumerate(slept))


def test_an_unreachable_host_is_given_up_sooner() -> None:
    assert failures_until_the_end(Patience(HttpSettings(attempts=6), "h"), Trouble("x", connected=False)) == 3


def test_a_final_error_is_not_retried(slept: list[float]) -> None:
    assert failures_until_the_end(Patience(HttpSettings(), "h"), Trouble("x", final=True)) == 1
    assert slept == []


def test_progress_resets_the_count_of_failures() -> None:
    patience = Patience(HttpSettings(attempts=2), "h")
    for _ in range(10):
        patience.failed(Trouble("x"))
        patience.progressed()


def test_a_longer_wait_is_announced(slept: list[float]) -> None:
    notices: list[str] = []
    Patience(HttpSettings(), "h", notices.append).failed(Trouble("h answered 429", wait=5))
    assert 5 <= slept[0] <= 5.5
    assert notices == [f"h answered 429; trying again in {slept[0]:.0f} s"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:30:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 120),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_server_s_reason_cannot_write_to_the_terminal() -> None:
    answer = Answer(503, {}, b'{"errors":[{"code":"X","message":"\\u001b[2Jgone\\nagain"}]}', "https://h/v2/")
    assert bad_status(answer).why == "X: [2Jgone again"
    assert len(safe_text("x" * 10_000)) == 300
    for content in (b"", b"[]", b'{"errors":[]}', b'{"errors":{}}', b"[" * 100_000, b'{"errors":[5]}', b"\xff"):
        assert Answer(500, {}, content, "").said() == ""


def test_a_name_that_certainly_does_not_exist_is_final() -> None:
    assert explain(socket.gaierror(socket.EAI_NONAME, "unknown"), "https://h/").final
    assert not explain(socket.gaierror(socket.EAI_AGAIN, "try again"), "https://h/").final


def test_an_unknown_failure_names_the_host_and_not_the_query() -> None:
    failure = explain(OSError(5, "Input/output error"), "https://h/x?sig=SECRET").failure("h", 2)
    assert failure.lines() == (
        "the connection to h broke (attempt 2)",
        "Input/output error",
        "check the network and try again",
    )

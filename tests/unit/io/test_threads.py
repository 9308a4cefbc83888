from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from factory.io.threads import Second, mapped, started
from tests.limits import allow_threads


@pytest.fixture(params=[None, 1, 0], ids=["threads", "one more thread", "no more threads"])
def allowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """How many threads the system still allows."""
    left: int | None = request.param
    if left is not None:
        allow_threads(left, monkeypatch)
    return left


def test_a_thread_is_started_or_not(allowed: int | None) -> None:
    before, seen = threading.stack_size(), threading.Event()
    thread = threading.Thread(target=seen.set)
    assert started(thread) is (allowed != 0)
    assert seen.wait(0 if allowed == 0 else 10) is (allowed != 0)
    assert threading.stack_size() == before


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("most", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_results_come_in_the_order_of_the_items(most: int, count: int) -> None:
    assert mapped(lambda number: number * 2, range(count), most) == [number * 2 for number in range(count)]


@pytest.mark.usefixtures("allowed")
def test_the_first_failure_ends_the_work_and_is_raised() -> None:
    done = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("three")
        done.append(number)

    with pytest.raises(ValueError, match="three"):
        mapped(work, range(100_000), 4)
    assert len(done) < 100_000


@pytest.mark.usefixtures("allowed")
def test_calls_of_a_second_thread_run_once_and_in_order() -> None:
    seen: list[int] = []
    calls: list[Callable[[], object]] = [lambda number=number: seen.append(number) for number in range(20)]  # type: ignore[misc]
    with Second() as second:
        for call in calls:
            second.submit(call)
            second.wait()
    assert seen == list(range(20))


@pytest.mark.usefixtures("allowed")
def test_a_failure_in_a_second_thread_is_raised_by_wait() -> None:
    with Second() as second:
        second.submit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            second.wait()

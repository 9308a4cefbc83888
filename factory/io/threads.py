"""Threads where the system may allow no more of them: login nodes limit processes, threads and address space.

Whatever uses these works with a single thread too, only slower.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeVar

_STACK = 1 << 20  # bytes; the usual 8 MiB of a thread count against ulimit -v
_STARTING = threading.Lock()

Item = TypeVar("Item")
Result = TypeVar("Result")


def started(thread: threading.Thread) -> bool:
    """Start a thread. Return False if the system allows no more (RLIMIT_NPROC, pids.max, RLIMIT_AS)."""
    with _STARTING:  # the size is one for the whole process
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            return False
        finally:
            threading.stack_size(before)
    return True


def mapped(work: Callable[[Item], Result], items: Iterable[Item], most: int) -> list[Result]:
    """Return the results of work for all items, in order. The caller's thread and up to ``most - 1`` others work.

    Raises what work raised first; items that nobody has begun by then are dropped.
    """
    waiting = list(enumerate(items))[::-1]
    results: dict[int, Result] = {}
    failures: list[BaseException] = []

    def run() -> None:
        while not failures:
            try:
                number, item = waiting.pop()
            except IndexError:
                return
            try:
                results[number] = work(item)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failures.append(error)

    others = [threading.Thread(target=run, daemon=True) for _ in range(min(most, len(waiting)) - 1)]
    running = []
    for other in others:
        if not started(other):
            break
        running.append(other)
    try:
        run()
    finally:
        waiting.clear()
        for other in running:
            other.join()
    if failures:
        raise failures[0]
    return [results[number] for number in sorted(results)]


class Second:
    """Runs calls in a second thread, one after another; in the caller's thread if there cannot be a second one."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._alone = True

    def __enter__(self) -> Second:
        self._alone = not started(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._alone:
            self._calls.put(None)
            self._thread.join()

    def submit(self, call: Callable[[], object]) -> None:
        """Run a call. Each call must be followed by ``wait``."""
        if self._alone:
            self._run(call)
        else:
            self._calls.put(call)

    def wait(self) -> None:
        """Wait for the end of the last call. Raises what it raised."""
        failure = self._ended.get()
        if failure is not None:
            raise failure

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._run(call)

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again by wait
            self._ended.put(error)
        else:
            self._ended.put(None)

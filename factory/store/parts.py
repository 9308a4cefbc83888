"""Parts of one blob over several connections at once, handed on in their order.

The workers only fill memory; the one reader writes what it is handed. So a partial file never has a hole: what is
there after a kill or a power cut is the beginning of the blob, without a journal that could disagree with it. What
that costs is bounded: the parts that are on their way, at most ``MEMORY`` bytes, are fetched again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from factory.errors import IntegrityFailure
from factory.io.progress import Progress

MEMORY = 48 * 1024 * 1024  # bytes that all parts on their way may have in memory
WORTH_IT = 16 * 1024 * 1024  # bytes below which one connection is as fast
_SMALLEST, _LARGEST = 4 * 1024 * 1024, 8 * 1024 * 1024
_ALONE = 64 * 1024 * 1024  # bytes that one connection is asked for before its speed is looked at again
_FAST = 500_000_000  # bytes a second of one connection: then the network is not what a pull waits for
_ENDING = 1.0  # seconds for workers to end; one that waits for the network ends with its wait, and changes nothing


@dataclass(frozen=True)
class Parts:
    """A source of any part of a blob, unverified.

    read: the bytes from an offset on, and how many; called from several threads. connections: how many at once.
    """

    read: Callable[[int, int], Iterable[bytes]]
    connections: int

    def worth_it(self, size: int) -> bool:
        """Whether so many bytes come sooner in parts."""
        return self.connections > 1 and size >= WORTH_IT

    def in_order(self, start: int, stop: int, progress: Progress) -> Generator[bytes, None, None]:
        """The bytes from start to stop. Raises what the first failing read raises, after all that came before it.

        The first part comes alone. Where it came fast, so does the next one: more connections would only take from
        others. Else the rest comes over all connections. Progress is told of bytes when they
        arrive; what is dropped at an early end is taken back. Close the iterator to end the workers.
        """
        at, size = start, self.size_of_part(stop - start)
        while at < stop:
            speed = _Speed()
            for block in speed.timed(self.exactly(at, min(size, stop - at))):
                progress.advance(len(block))
                at += len(block)
                yield block
            if speed.measured < _FAST:
                yield from _Transfer(self, at, stop, progress).blocks()
                return
            size = _ALONE

    def exactly(self, start: int, size: int) -> Generator[bytes, None, None]:
        """A part. Raises IntegrityFailure unless it has so many bytes."""
        seen = 0
        for block in self.read(start, size):
            seen += len(block)
            if seen > size:
                break
            yield block
        if seen != size:
            raise IntegrityFailure(
                "a part of the image has another size than it should have",
                why=f"wanted {size} bytes from byte {start} on, got {'more' if seen > size else seen}",
                fix="try again; if it repeats, the registry or a proxy before it is at fault",
            )

    def size_of_part(self, size: int) -> int:
        """Bytes of a part: small, since a kill loses those on their way; large, since each costs a round trip."""
        usual = min(_LARGEST, max(_SMALLEST, size // 64))
        return min(usual, MEMORY // (self.connections + 1))


class _Speed:
    """How fast blocks came, in bytes a second of waiting for them; the first, whose wait is a round trip, aside."""

    def __init__(self) -> None:
        self.measured = 0.0

    def timed(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass blocks on."""
        yield next(blocks, b"")
        size, waited, asked = 0, 0.0, time.monotonic()
        for block in blocks:
            size, waited = size + len(block), waited + time.monotonic() - asked
            yield block
            asked = time.monotonic()
        self.measured = size / max(waited, 1e-9)


class _Transfer:
    """Workers claim parts in order, at most one part more than there are workers is on its way."""

    def __init__(self, parts: Parts, start: int, stop: int, progress: Progress) -> None:
        self._parts = parts
        self._most = parts.connections
        self._part = parts.size_of_part(stop - start)
        self._stop = stop
        self._progress = progress
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._given = start  # the reader has all before this
        self._head = start  # where the part begins that the reader is in
        self._unclaimed = start
        self._arrived: dict[int, deque[bytes]] = {}  # by the offset at which a part begins
        self._in_memory = 0
        self._failure: BaseException | None = None
        self._ended = False

    def blocks(self) -> Generator[bytes, None, None]:
        """The bytes in order."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._most)]
        try:
            for worker in workers:
                worker.start()
            while self._given < self._stop:
                yield self._next()
        finally:
            self._end()
            patience = time.monotonic() + _ENDING
            for worker in workers:
                if worker.ident is not None:  # it was started
                    worker.join(max(0.0, patience - time.monotonic()))

    def _next(self) -> bytes:
        with self._changed:
            while not (waiting := self._arrived.get(self._head)):
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
            block = waiting.popleft()
            self._given += len(block)
            self._in_memory -= len(block)
            if self._given == min(self._head + self._part, self._stop):
                del self._arrived[self._head]
                self._head = self._given
                self._changed.notify_all()
            return block

    def _end(self) -> None:
        """Let no worker go on, and take back what nobody will get."""
        with self._changed:
            self._ended = True
            self._arrived.clear()
            self._progress.advance(-self._in_memory)
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while (start := self._claim()) is not None:
                self._fill(start, min(self._part, self._stop - start))
        except BaseException as error:  # noqa: BLE001 - it is raised again, where the bytes are read
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _claim(self) -> int | None:
        """Where the next part begins, once there is room for it; None when there is nothing more to do."""
        with self._changed:
            while not self._over() and self._unclaimed > self._head + self._part * self._most:
                self._changed.wait()
            if self._over() or self._unclaimed >= self._stop:
                return None
            start = self._unclaimed
            self._unclaimed += self._part
            self._arrived[start] = deque()
            return start

    def _fill(self, start: int, size: int) -> None:
        for block in self._parts.exactly(start, size):
            with self._changed:
                if self._over():
                    return
                self._arrived[start].append(block)
                self._in_memory += len(block)
                self._progress.advance(len(block))
                self._changed.notify_all()

    def _over(self) -> bool:
        return self._ended or self._failure is not None

"""The workers of a transfer: they fetch parts of a blob over several connections, and deliver them in order.

Workers only fill memory; a single reader writes to disk. So a partial file never has holes: after a kill or a power
cut it is the beginning of the blob, and no journal is needed. At most ``MEMORY`` bytes that had arrived but were not
written are fetched again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from factory.errors import IntegrityFailure
from factory.io import threads
from factory.io.progress import Progress
from factory.store.fetch.plan import Span

MEMORY = 48 * 1024 * 1024  # bytes that may be in memory
WORTH_IT = 16 * 1024 * 1024  # bytes; below this, one connection is as fast as several
_SMALLEST, _LARGEST = 4 * 1024 * 1024, 8 * 1024 * 1024  # bytes of a part
_ALONE = 64 * 1024 * 1024  # bytes to fetch over one connection before its speed is measured again
_FAST = 500_000_000  # bytes per second of one connection at which the network is not the bottleneck
_ENDING = 1.0  # seconds for workers to end; one that waits for the network ends later, without effect


@dataclass(frozen=True)
class Source:
    """The source of a blob's unverified bytes.

    read: takes an offset and a length (None: to the end), and yields blocks; several threads call it. connections: how
    many parts to read at the same time.
    """

    read: Callable[[int, int | None], Iterable[bytes]]
    connections: int = 1

    def part(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """Yield one part. Raises IntegrityFailure unless it has exactly ``length`` bytes."""
        seen = 0
        for block in self.read(offset, length):
            seen += len(block)
            if seen > length:
                break
            yield block
        if seen != length:
            raise IntegrityFailure(
                "a part of the image has the wrong size",
                why=f"expected {length} bytes from byte {offset} on, got {'more' if seen > length else seen}",
                fix="try again; if it repeats, the registry or a proxy in between is at fault",
            )

    def part_size(self, size: int) -> int:
        """Return the size of a part, of ``size`` bytes in total: a kill loses little, and requests stay few."""
        usual = min(_LARGEST, max(_SMALLEST, size // 64))
        return min(usual, MEMORY // (self.connections + 1))


def rest(source: Source, start: int, stop: int, progress: Progress) -> Generator[bytes, None, None]:
    """Yield the bytes from start to stop, the end of the blob.

    Few bytes, or a single connection, take one request. Otherwise the first part is fetched alone. If it was fast, so
    is the next, since more connections would only slow down others; if not, all connections share the rest. Raises
    OnlyWhole if the registry does not serve ranges. Progress advances as bytes arrive; bytes dropped at an early end
    are subtracted. Close the iterator to end the workers.
    """
    if source.connections <= 1 or stop - start < WORTH_IT:
        yield from to_the_end(source, start, progress) if start < stop else ()
        return
    at, size = start, source.part_size(stop - start)
    while at < stop:
        speed = _Speed()
        for block in speed.timed(source.part(at, min(size, stop - at))):
            progress.advance(len(block))
            at += len(block)
            yield block
        if speed.measured < _FAST:
            with Pool(source, [Span(at, stop - at)] if at < stop else [], progress) as pool:
                yield from pool.blocks(stop - at)
            return
        size = _ALONE


def to_the_end(source: Source, start: int, progress: Progress) -> Generator[bytes, None, None]:
    """Yield the bytes from start on, in one request."""
    for block in source.read(start, None):
        progress.advance(len(block))
        yield block


class _Speed:
    """Measures bytes per second of waiting, without the first block, whose wait is a round trip."""

    def __init__(self) -> None:
        self.measured = 0.0

    def timed(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the blocks unchanged."""
        yield next(blocks, b"")
        size, waited, asked = 0, 0.0, time.monotonic()
        for block in blocks:
            size, waited = size + len(block), waited + time.monotonic() - asked
            yield block
            asked = time.monotonic()
        self.measured = size / max(waited, 1e-9)


class Pool:
    """Workers that fetch spans of a blob while the block runs. Without any, the reader fetches part by part.

    They claim parts in order, as long as these and the bytes that the reader has not taken yet fit into memory.
    """

    def __init__(self, source: Source, spans: Sequence[Span], progress: Progress) -> None:
        self._source = source
        self._progress = progress
        most = source.part_size(sum(span.length for span in spans))
        self._parts = [part for span in spans for part in cut(span.offset, span.length, most)]
        count = min(max(source.connections, 1), len(self._parts))
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        self._changed = threading.Condition()
        # Everything below is guarded by _changed.
        self._claimed = 0  # parts
        self._reading = 0  # the number of the part that the reader is in
        self._taken = 0  # bytes of that part that the reader has
        self._room = MEMORY  # bytes that may still be claimed
        self._arrived: dict[int, deque[bytes]] = {}  # by the number of the part
        self._in_memory = 0
        self._failure: BaseException | None = None
        self._ended = False

    def __enter__(self) -> Pool:
        try:
            count = next((number for number, one in enumerate(self._workers) if not threads.started(one)), None)
        except BaseException:
            self.__exit__()
            raise
        self._workers = self._workers[:count]  # fewer where the system allows no more threads, perhaps none
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers, and subtract undelivered bytes from the progress."""
        with self._changed:
            self._ended = True
            self._arrived.clear()
            self._progress.advance(-self._in_memory)
            self._changed.notify_all()
        patience = time.monotonic() + _ENDING
        for worker in self._workers:
            if worker.ident is not None:
                worker.join(max(0.0, patience - time.monotonic()))

    def blocks(self, size: int) -> Generator[bytes, None, None]:
        """Yield the next ``size`` bytes of the spans, in order; they end where a part ends.

        Raises the error of the first failed read, after all bytes that arrived before it.
        """
        while size > 0:
            block = self._next()
            size -= len(block)
            yield block

    def _next(self) -> bytes:
        if not self._workers and not self._arrived.get(self._reading):
            self._fetch_next()
        with self._changed:
            while not (waiting := self._arrived.get(self._reading)):
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
            block = waiting.popleft()
            self._taken += len(block)
            self._in_memory -= len(block)
            length = self._parts[self._reading][1]
            if self._taken == length:
                del self._arrived[self._reading]
                self._reading, self._taken = self._reading + 1, 0
                self._room += length
                self._changed.notify_all()
            return block

    def _work(self) -> None:
        try:
            while (number := self._claim()) is not None:
                self._fetch(number)
        except BaseException as error:  # noqa: BLE001 - raised again in the reader
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _fetch_next(self) -> None:
        """Fetch the next part in the reader's own thread. What arrives before a failure is read before it is raised."""
        number = self._claim()
        if number is not None:
            try:
                self._fetch(number)
            except Exception as error:  # noqa: BLE001 - raised again after the bytes that arrived
                self._failure = error

    def _claim(self) -> int | None:
        """Return the number of the next part once memory is free for it; None if nothing is left to do."""
        with self._changed:
            while not self._over() and self._claimed < len(self._parts) and self._parts[self._claimed][1] > self._room:
                self._changed.wait()
            if self._over() or self._claimed == len(self._parts):
                return None
            number = self._claimed
            self._claimed += 1
            self._room -= self._parts[number][1]
            self._arrived[number] = deque()
            return number

    def _fetch(self, number: int) -> None:
        for block in self._source.part(*self._parts[number]):
            with self._changed:
                if self._over():
                    return
                self._arrived[number].append(block)
                self._in_memory += len(block)
                self._progress.advance(len(block))
                self._changed.notify_all()

    def _over(self) -> bool:
        return self._ended or self._failure is not None


def cut(at: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of pieces of at most ``most`` bytes."""
    for start in range(at, at + length, most):
        yield start, min(most, at + length - start)

"""An image that is put together: what local images have of it is copied, only the rest is fetched.

The rest comes over several connections, in any order, into a sparse file beside the partial one, each byte at its own
place in the image. So a partial file stays the beginning of the image, and what had come ahead of it survives a kill:
the next run looks into that file for what is right in it. Nothing here is believed: the digest of the whole decides.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from factory.errors import IntegrityFailure
from factory.io import plain, private
from factory.io.below import Entry
from factory.io.progress import Progress
from factory.store.parts import Parts

AHEAD = ".ahead"
_PART = 4 * 1024 * 1024  # bytes asked for at once
_ENDING = 1.0  # seconds for workers to end
_STRETCH = 8 * 1024 * 1024  # bytes copied at once: then others are told of them


def ahead_of(partial: Entry) -> Entry:
    """The file for what comes ahead of a partial one."""
    return partial.folder.named(partial.name + AHEAD)


class Piece(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of an image. They are in ``file`` from ``at`` on; None: to be fetched."""

    offset: int
    length: int
    file: Path | None
    at: int


# Given the file of what came ahead, or where it would be: pieces that cover the image in order, None when it is better
# fetched whole.
Plan = Callable[[Path], Sequence[Piece] | None]


class Stretch(NamedTuple):
    """``length`` bytes of an open file, by its descriptor, from ``at`` on."""

    descriptor: int
    at: int
    length: int


@dataclass(frozen=True)
class Assembly:
    """How one image is put together. ahead: the file for what is fetched; pieces: see ``Plan``."""

    ahead: Entry
    pieces: tuple[Piece, ...]
    parts: Parts

    @property
    def missing(self) -> int:
        """Bytes to fetch."""
        return sum(piece.length for piece in self.pieces if piece.file is None)

    def stretches(self, start: int, fetched: Fetched, progress: Progress) -> Generator[Stretch, None, None]:
        """Where the bytes from ``start`` on are, in order; those that are fetched, as soon as they are here.

        Raises IntegrityFailure when a local image cannot be read, OnlyWhole, and what the parts raise, at the latest
        where the bytes are wanted. Close the iterator to end the workers.
        """
        pieces = tuple(_after(self.pieces, start))
        with contextlib.ExitStack() as stack:
            ahead = stack.enter_context(self.ahead.update())
            coming = stack.enter_context(_Coming(ahead, pieces, self.parts, fetched, progress))
            opened: dict[Path, int] = {self.ahead.path: ahead.fileno()}
            for piece in pieces:
                if piece.file is None:
                    yield from coming.stretches(piece)
                    continue
                if piece.file not in opened:
                    opened[piece.file] = stack.enter_context(_for_reading(piece.file))
                for at, length in _cut(piece.at, piece.length, _STRETCH):
                    yield Stretch(opened[piece.file], at, length)
                    progress.advance(length)


@dataclass
class Fetched:
    """How many bytes have come over the network."""

    size: int = 0


class _Coming:
    """Workers fetch the missing pieces in parts, in order, each to its place in the file."""

    def __init__(
        self, file: FileIO, pieces: Sequence[Piece], parts: Parts, fetched: Fetched, progress: Progress
    ) -> None:
        self._file = file
        self._parts = parts
        self._fetched = fetched
        self._progress = progress
        missing = (piece for piece in pieces if piece.file is None)
        wanted = [part for piece in missing for part in _cut(piece.offset, piece.length, _PART)]
        self._workers = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(max(parts.connections, 1), len(wanted)))
        ]
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._unclaimed = iter(wanted)
        self._arrived: set[int] = set()  # by the offset at which a part begins
        self._failure: BaseException | None = None
        self._ended = False
        self._waiting = 0  # bytes that are here and not handed on yet

    def __enter__(self) -> _Coming:
        try:
            for worker in self._workers:
                worker.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody writes to the file any more, not even a worker that still waits for the network."""
        with self._changed:
            self._ended = True
            self._progress.advance(-self._waiting)
        patience = time.monotonic() + _ENDING
        for worker in self._workers:
            if worker.ident is not None:  # it was started
                worker.join(max(0.0, patience - time.monotonic()))

    def stretches(self, piece: Piece) -> Iterator[Stretch]:
        """Where the bytes of a missing piece are, once they are here. Raises the first worker's failure."""
        for offset, length in _cut(piece.offset, piece.length, _PART):
            with self._changed:
                while offset not in self._arrived:
                    if self._failure is not None:
                        raise self._failure
                    self._changed.wait()
                self._waiting -= length
            yield Stretch(self._file.fileno(), offset, length)

    def _work(self) -> None:
        try:
            while (part := self._claim()) is not None:
                self._fetch(*part)
        except BaseException as error:  # noqa: BLE001 - it is raised again, where the bytes are wanted
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _claim(self) -> tuple[int, int] | None:
        with self._changed:
            return None if self._ended or self._failure is not None else next(self._unclaimed, None)

    def _fetch(self, offset: int, length: int) -> None:
        at = offset
        for block in self._parts.exactly(offset, length):
            with self._changed:
                if self._ended:
                    return
                private.write_at(self._file, block, at)
                self._fetched.size += len(block)
                self._waiting += len(block)
                self._progress.advance(len(block))
            at += len(block)
        with self._changed:
            self._arrived.add(offset)
            self._changed.notify_all()


@contextlib.contextmanager
def _for_reading(path: Path) -> Iterator[int]:
    try:
        descriptor = plain.open_plain(path)
    except plain.NotPlainError as error:
        raise unreadable(path, f"it {error.how}") from error
    except OSError as error:
        raise unreadable(path, error.strerror or "") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unreadable(path: Path | str, why: str) -> IntegrityFailure:
    """The error for a local image whose bytes were to be reused."""
    return IntegrityFailure(f"{path} cannot be read", why=why, fix="singfactory store verify --repair")


def _after(pieces: Sequence[Piece], start: int) -> Iterator[Piece]:
    """The pieces from a byte of the image on; the one around it without what is before it."""
    for piece in pieces:
        seen = max(0, start - piece.offset)
        if seen < piece.length:
            yield Piece(piece.offset + seen, piece.length - seen, piece.file, piece.at + seen)


def _cut(at: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    for start in range(at, at + length, most):
        yield start, min(most, at + length - start)

"""A plan is carried out: a partial file becomes the wanted blob by copying and fetching, and is hashed meanwhile.

This is the one place that verifies what is pulled. Bytes are written in order, so a partial file is always the
beginning of the blob. The digest of the whole, read back from the file, decides in any case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Generator, Iterator
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from factory.errors import IntegrityFailure, OnlyWhole
from factory.io import copying, files, plain, private
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Verifier, too_long
from factory.store.fetch.partial import Partial, open_partial
from factory.store.fetch.plan import Plan, Span
from factory.store.fetch.pool import Pool, Source, cut, rest, to_the_end
from factory.store.store import Store

_MARGIN = 64 * 1024 * 1024  # bytes that stay free for what else happens on the disk
_FLUSH = 8 * 1024 * 1024  # bytes that are hashed before the disk is told to write them
_BEHIND = 64 * 1024 * 1024  # bytes back, what was written is on the disk, most likely
_STRETCH = 8 * 1024 * 1024  # bytes copied at once; then the progress advances

SLEPT = "this pull slept, and another one took its place"
_ONCE_MORE = "the bytes were not right; fetching the image once more"
_NOT_REUSABLE = "what is reused does not give the image, all of it is fetched (see: singfactory store verify)"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetch_whole(
    store: Store, wanted: Descriptor, source: Source, progress: Progress, *, cached: bool = False
) -> tuple[Path, int]:
    """Make a blob present in a store, all of it from one source; its path, and how many bytes were fetched.

    cached: as transfer takes it. Raises what the source raises, IntegrityFailure, NoRoom.
    """
    fetched = 0
    while True:
        here = store.usable(wanted)
        if here is not None:
            return here, fetched
        with open_partial(store, wanted, progress) as partial:
            if partial is None:  # another process has fetched it
                continue
            fetched += transfer(Plan.whole(wanted), source, partial, progress, cached=cached)
            path = partial.publish()
        if path is not None:
            return path, fetched
        progress.note(SLEPT)


def transfer(plan: Plan, source: Source, partial: Partial, progress: Progress, *, cached: bool = False) -> int:
    """Continue or begin a partial file until it is the wanted blob; how many bytes were fetched.

    cached: whether the file is read again soon, on this machine; else the kernel is told to forget it. Wrong bytes cost
    one clean fetch of everything. Raises IntegrityFailure when that is wrong too, and removes the file then; NoRoom;
    what the source raises, and keeps what came in order.
    """
    first = _Transfer(source, partial, progress, cached=cached)
    try:
        first.run(plan)
    except IntegrityFailure as error:
        partial.file.truncate(0)
        progress.note(f"{_NOT_REUSABLE}: {error.why or error.what}" if plan.copies else _ONCE_MORE)
    else:
        return first.fetched
    second = _Transfer(source, partial, progress, cached=cached)
    try:
        second.run(Plan.whole(plan.wanted))
    except IntegrityFailure:
        partial.entry.remove()
        raise
    return first.fetched + second.fetched


class _Transfer:
    """One pass over a partial file. fetched: bytes that came from the source and were written."""

    def __init__(self, source: Source, partial: Partial, progress: Progress, *, cached: bool) -> None:
        self._source = source
        self._partial = partial
        self._file = partial.file
        self._progress = progress
        self._cached = cached
        self._at = 0
        self.fetched = 0

    def run(self, plan: Plan) -> None:
        """Carry out the part of the plan that comes after what the file has already."""
        wanted = plan.wanted
        kept = os.fstat(self._file.fileno()).st_size
        if kept > wanted.size:
            self._file.truncate(0)
            kept = 0
        self._at = self._file.seek(kept)
        files.require_space(self._partial.entry.folder.path, wanted.size - kept + _MARGIN, "to pull the image")
        self._progress.begin("pull", wanted.size)
        try:
            self._progress.advance(kept)
            with _Hasher(self._file, Verifier(wanted), kept, cached=self._cached) as hasher:
                try:
                    self._by_spans(plan.after(kept), hasher, wanted)
                except OnlyWhole:
                    self._write(to_the_end(self._source, self._at, self._progress), hasher, wanted)
                hasher.finish()
        finally:
            self._progress.end()

    def _by_spans(self, spans: tuple[Span, ...], hasher: _Hasher, wanted: Descriptor) -> None:
        if len(spans) == 1 and spans[0].file is None:
            self._write(rest(self._source, self._at, wanted.size, self._progress), hasher, wanted)
            return
        missing = [span for span in spans if span.file is None]
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(Pool(self._source, missing, self._progress))
            opened: dict[Path, int] = {}
            for span in spans:
                if span.file is None:
                    self._write(pool.blocks(span.length), hasher, wanted)
                    continue
                if span.file not in opened:
                    opened[span.file] = stack.enter_context(_for_reading(span.file))
                self._copy(opened[span.file], span, hasher)

    def _write(self, blocks: Generator[bytes, None, None], hasher: _Hasher, wanted: Descriptor) -> None:
        with contextlib.closing(blocks):
            for block in blocks:
                self._at += len(block)
                self.fetched += len(block)
                if self._at > wanted.size:
                    raise too_long(wanted)
                private.write_all(self._file, block)
                hasher.written(self._at)

    def _copy(self, descriptor: int, span: Span, hasher: _Hasher) -> None:
        for at, length in cut(span.at, span.length, _STRETCH):
            try:
                copied = copying.copy_range(descriptor, self._file.fileno(), at, length)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
                raise _unreadable(span.file, str(error)) from error
            if copied < length:
                raise _unreadable(span.file, "it ends too early")
            self._at += length
            self._progress.advance(length)
            hasher.written(self._at)


@contextlib.contextmanager
def _for_reading(path: Path) -> Iterator[int]:
    try:
        descriptor = plain.open_plain(path)
    except plain.NotPlainError as error:
        raise _unreadable(path, f"it {error.how}") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or "") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unreadable(path: Path | None, why: str) -> IntegrityFailure:
    """The error for a local image from which bytes were to be copied."""
    return IntegrityFailure(f"{path} cannot be read", why=why, fix="singfactory store verify --repair")


class _Hasher:
    """Hashes a file from its beginning in a thread of its own, behind the one that still writes its end.

    What an earlier run left is hashed while the rest is on its way. Hashing takes longer than all else on a fast
    network, so nothing else waits for it. The two only share a queue: an interrupt at any point leaves no lock behind.
    """

    def __init__(self, file: FileIO, verifier: Verifier, size: int, *, cached: bool) -> None:
        self._file = file
        self._verifier = verifier
        self._cached = cached
        self._sizes: SimpleQueue[int | None] = SimpleQueue()  # how much of the file is there; None: nothing more comes
        self._sizes.put(size)
        self._left = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Hasher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._sizes.put(None)
        self._thread.join()

    def written(self, size: int) -> None:
        """The file has so many bytes now. Raises what has gone wrong with hashing."""
        if self._failure is not None:
            raise self._failure
        self._sizes.put(size)

    def finish(self) -> None:
        """Nothing more will be written. Raises IntegrityFailure unless the file is the wanted blob."""
        self._sizes.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._verifier.finish()

    def _work(self) -> None:
        try:
            self._hash()
        except BaseException as error:  # noqa: BLE001 - it is raised again, where the file is written
            self._failure = error

    def _hash(self) -> None:
        block = memoryview(bytearray(files.BLOCK))
        flushed = 0
        while (size := self._sizes.get()) is not None:
            while self._verifier.seen < size and not self._left:
                room = block[: size - self._verifier.seen]
                count = os.preadv(self._file.fileno(), [room], self._verifier.seen)
                if count == 0:
                    raise IntegrityFailure("the file became shorter while it was written", fix="try again")
                self._verifier.update(block[:count])
            if self._verifier.seen - flushed >= _FLUSH:
                private.start_writing(self._file, flushed, self._verifier.seen - flushed)
                if not self._cached and flushed > _BEHIND:
                    private.uncache(self._file, flushed - _BEHIND)
                flushed = self._verifier.seen

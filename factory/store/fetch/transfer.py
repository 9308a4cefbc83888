"""Carry out a transfer plan: complete a partial file by copying and fetching, and hash it on the way.

This is the only place that verifies pulled images. Bytes are written in order, so a partial file is always the
beginning of the blob. The digest is computed from the file as read back, not from the network.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Generator, Iterator
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from factory.errors import IntegrityFailure, OnlyWhole
from factory.io import copying, files, plain, private, threads
from factory.io.progress import Progress, step
from factory.oci.digest import Descriptor, Verifier, too_long
from factory.store.fetch.partial import Partial, open_partial
from factory.store.fetch.plan import Plan, Span
from factory.store.fetch.pool import Pool, Source, cut, rest, to_the_end
from factory.store.store import Store

_MARGIN = 64 * 1024 * 1024  # bytes to leave free on the disk
_FLUSH = 8 * 1024 * 1024  # bytes hashed between two requests to start writeback
_BEHIND = 64 * 1024 * 1024  # bytes before the current position that are most likely on disk
_STRETCH = 8 * 1024 * 1024  # bytes copied between two progress updates

SLEPT = "this pull was suspended, and another one replaced it"
_ONCE_MORE = "the digest is wrong; fetching the image once more"
_NOT_REUSABLE = "local images gave wrong bytes, fetching the whole image (check them: singfactory store verify)"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetch_whole(
    store: Store,
    wanted: Descriptor,
    source: Source,
    progress: Progress,
    *,
    label: str = "pull",
    cached: bool = False,
    begun: Callable[[int], None] | None = None,
) -> tuple[Path, int]:
    """Fetch a whole blob into a store from one source; return its path and the number of bytes fetched.

    cached: see ``transfer``. begun: called with the descriptor of the partial file, if this process fetches.
    Raises the source's errors, IntegrityFailure, NoRoom.
    """
    fetched = 0
    while True:
        here = store.usable(wanted)
        if here is not None:
            return here, fetched
        with open_partial(store, wanted, progress) as partial:
            if partial is None:  # another process has fetched it
                continue
            if begun is not None:
                begun(partial.file.fileno())
            fetched += transfer(Plan.whole(wanted), source, partial, progress, label=label, cached=cached)
            path = partial.publish()
        if path is not None:
            return path, fetched
        progress.note(SLEPT)


def transfer(
    plan: Plan, source: Source, partial: Partial, progress: Progress, *, label: str = "pull", cached: bool = False
) -> int:
    """Complete a partial file to the wanted blob; return the number of bytes fetched.

    cached: whether the file will be read soon on this machine; if not, it is dropped from the page cache. If the digest
    is wrong, everything is fetched once more. If it is wrong again, removes the file and raises IntegrityFailure. Also
    raises NoRoom and the source's errors; the file then keeps what arrived in order.
    """
    first = _Transfer(source, partial, progress, label, cached=cached)
    try:
        first.run(plan)
    except IntegrityFailure as error:
        partial.file.truncate(0)
        progress.note(f"{_NOT_REUSABLE}: {error.why or error.what}" if plan.copies else _ONCE_MORE)
    else:
        return first.fetched
    second = _Transfer(source, partial, progress, label, cached=cached)
    try:
        second.run(Plan.whole(plan.wanted))
    except IntegrityFailure:
        partial.entry.remove()
        raise
    return first.fetched + second.fetched


class _Transfer:
    """One pass over a partial file. fetched: bytes fetched from the source and written."""

    def __init__(self, source: Source, partial: Partial, progress: Progress, label: str, *, cached: bool) -> None:
        self._source = source
        self._partial = partial
        self._file = partial.file
        self._progress = progress
        self._label = label
        self._cached = cached
        self._at = 0
        self.fetched = 0

    def run(self, plan: Plan) -> None:
        """Carry out the part of the plan that the file does not have yet."""
        wanted = plan.wanted
        kept = os.fstat(self._file.fileno()).st_size
        if kept > wanted.size:
            self._file.truncate(0)
            kept = 0
        self._at = self._file.seek(kept)
        files.require_space(self._partial.entry.folder.path, wanted.size - kept + _MARGIN, "to pull the image")
        with (
            step(self._progress, self._label, wanted.size) as advance,
            _Hasher(self._file, Verifier(wanted), kept, cached=self._cached) as hasher,
        ):
            advance(kept)
            try:
                self._by_spans(plan.after(kept), hasher, wanted)
            except OnlyWhole:
                self._write(to_the_end(self._source, self._at, self._progress), hasher, wanted)
            hasher.finish()

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
                raise _unreadable(span.file, "it is too short")
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
    """Return the error for a local image whose bytes cannot be copied."""
    return IntegrityFailure(f"{path} cannot be read", why=why, fix="singfactory store verify --repair")


class _Hasher:
    """Hashes a file from its beginning in its own thread, while the main thread still appends to it.

    Bytes from an earlier run are hashed while the rest is fetched. On a fast network hashing is the slowest step, so
    nothing else waits for it. The threads share only a queue, so an interrupt never leaves a lock held. If the system
    allows no more threads, the writing thread hashes what it has written.
    """

    def __init__(self, file: FileIO, verifier: Verifier, size: int, *, cached: bool) -> None:
        self._file = file
        self._verifier = verifier
        self._cached = cached
        self._sizes: SimpleQueue[int | None] = SimpleQueue()  # sizes of the file as it grows; None: it is complete
        self._sizes.put(size)
        self._left = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._alone = True
        self._block = memoryview(bytearray(files.BLOCK))
        self._flushed = 0

    def __enter__(self) -> _Hasher:
        self._alone = not threads.started(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._end()

    def written(self, size: int) -> None:
        """Report the file's new size. Raises the error of the hashing thread, if any."""
        if self._failure is not None:
            raise self._failure
        if self._alone:
            self._hash(size)
        else:
            self._sizes.put(size)

    def finish(self) -> None:
        """Wait until the whole file is hashed. Raises IntegrityFailure unless it is the wanted blob."""
        self._end()
        if self._failure is not None:
            raise self._failure
        self._verifier.finish()

    def _end(self) -> None:
        self._sizes.put(None)
        if self._alone:
            self._work()
        else:
            self._thread.join()

    def _work(self) -> None:
        try:
            while (size := self._sizes.get()) is not None:
                self._hash(size)
        except BaseException as error:  # noqa: BLE001 - raised again in the writing thread
            self._failure = error

    def _hash(self, size: int) -> None:
        """Hash the file up to a size, and start writing its pages to disk."""
        while self._verifier.seen < size and not self._left:
            part = self._block[: size - self._verifier.seen]
            count = os.preadv(self._file.fileno(), [part], self._verifier.seen)
            if count == 0:
                raise IntegrityFailure("the partial file was truncated while it was written", fix="try again")
            self._verifier.update(self._block[:count])
        if self._verifier.seen - self._flushed >= _FLUSH:
            private.start_writing(self._file, self._flushed, self._verifier.seen - self._flushed)
            if not self._cached and self._flushed > _BEHIND:
                private.uncache(self._file, self._flushed - _BEHIND)
            self._flushed = self._verifier.seen

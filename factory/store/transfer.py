"""A partial file becomes the wanted blob: the rest of it is fetched or copied, all of it is hashed meanwhile.

This is the one place that verifies what is pulled. A partial file is always the beginning of the blob, in order; the
digest of the whole, read back from the file, decides in any case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from io import FileIO
from queue import SimpleQueue

from factory.digest import Descriptor, Verifier, too_long
from factory.errors import IntegrityFailure, NoRoom, OnlyWhole
from factory.io import files, private
from factory.io.below import Entry
from factory.io.progress import Progress
from factory.store.assemble import Assembly, Fetched, ahead_of
from factory.store.parts import Parts

_MARGIN = 64 * 1024 * 1024  # bytes that stay free for what else happens on the disk
_FLUSH = 8 * 1024 * 1024  # bytes that are hashed before the disk is told to write them
_BEHIND = 64 * 1024 * 1024  # bytes back what was written is on the disk, most likely

_ONCE_MORE = "the bytes were not right; fetching the image once more"
_NOT_REUSABLE = "what is reused does not give the image, all of it is fetched (see: singfactory store verify)"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Fetch = Callable[[int], Iterable[bytes]]


@dataclass(frozen=True)
class Sources:
    """Where the bytes of a blob come from, none of them believed.

    fetch: all from an offset on. parts: the same over several connections. assembly: what local images have of it.
    """

    fetch: Fetch
    parts: Parts | None = None
    assembly: Assembly | None = None


def complete(file: FileIO, partial: Entry, wanted: Descriptor, sources: Sources, progress: Progress) -> int:
    """Continue or begin the partial file until it is the wanted blob; the number of bytes fetched.

    Wrong bytes cost one clean fetch of all from the start. Raises IntegrityFailure when that is wrong too, and keeps
    nothing then; NoRoom; what the sources raise, and keeps what came in order.
    """
    fetched = Fetched()
    try:
        _fill(file, partial, wanted, sources, fetched=fetched, progress=progress)
    except IntegrityFailure as error:
        file.truncate(0)
        ahead_of(partial).remove()
        progress.note(_ONCE_MORE if sources.assembly is None else f"{_NOT_REUSABLE}: {error.why or error.what}")
    else:
        return fetched.size
    try:
        _fill(file, partial, wanted, replace(sources, assembly=None), fetched=fetched, progress=progress)
    except IntegrityFailure:
        partial.remove()
        raise
    return fetched.size


def _fill(
    file: FileIO, partial: Entry, wanted: Descriptor, sources: Sources, *, fetched: Fetched, progress: Progress
) -> None:
    kept = os.fstat(file.fileno()).st_size
    if kept > wanted.size:
        file.truncate(0)
        kept = 0
    at = file.seek(kept)
    assembly = _with_room(sources.assembly, partial, wanted.size - kept)
    files.require_space(partial.folder.path, wanted.size - kept + _MARGIN, "to pull the image")
    progress.begin("pull", wanted.size)
    try:
        progress.advance(kept)
        # Who copies an image to this machine's disk runs it now; who fetches one mostly runs it elsewhere, or later.
        with _Hasher(file, Verifier(wanted), kept, cached=sources.parts is None) as hasher:
            if assembly is not None:
                _assemble(file, assembly, fetched, hasher, progress)
                at = file.tell()
            with contextlib.closing(_rest(at, wanted.size, sources, progress)) as blocks:
                for block in blocks:
                    at += len(block)
                    fetched.size += len(block)
                    if at > wanted.size:
                        raise too_long(wanted)
                    private.write_all(file, block)
                    hasher.written(at)
            hasher.finish()
    finally:
        progress.end()


def _with_room(assembly: Assembly | None, partial: Entry, size: int) -> Assembly | None:
    """The assembly, unless there is no room for what it fetches ahead, beside the image itself (bytes)."""
    if assembly is not None:
        with contextlib.suppress(NoRoom):
            files.require_space(partial.folder.path, size + assembly.missing + _MARGIN, "to pull the image")
            return assembly
    return None


def _assemble(file: FileIO, assembly: Assembly, fetched: Fetched, hasher: _Hasher, progress: Progress) -> None:
    """Go on as far as pieces bring it: to the end, unless the registry serves no parts."""
    at = file.tell()
    with contextlib.suppress(OnlyWhole), contextlib.closing(assembly.stretches(at, fetched, progress)) as stretches:
        for descriptor, start, length in stretches:
            try:
                private.write_from(file, descriptor, start, length)
            except (EOFError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise
                raise IntegrityFailure("a local image cannot be read to its end", why=str(error)) from error
            at += length
            hasher.written(at)


def _rest(at: int, size: int, sources: Sources, progress: Progress) -> Generator[bytes, None, None]:
    """The bytes from ``at`` on: in parts where that is worth it and served, else over one connection."""
    if sources.parts is not None and sources.parts.worth_it(size - at):
        with contextlib.suppress(OnlyWhole), contextlib.closing(sources.parts.in_order(at, size, progress)) as blocks:
            for block in blocks:
                at += len(block)
                yield block
    for block in sources.fetch(at) if at < size else ():
        progress.advance(len(block))
        yield block


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

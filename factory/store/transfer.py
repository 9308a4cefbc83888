"""A partial file becomes the wanted blob: what is there is hashed again, the rest is fetched, hashed and appended.

This is the one place that verifies what is pulled. A partial file is always the beginning of the blob, in order; the
digest of the whole decides in any case.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import BinaryIO

from factory.digest import Descriptor, Verifier
from factory.errors import IntegrityFailure, OnlyWhole
from factory.io import files
from factory.io.progress import Progress
from factory.store.parts import Parts

_MARGIN = 64 * 1024 * 1024  # bytes that stay free for what else happens on the disk

Fetch = Callable[[int], Iterable[bytes]]


def complete(
    file: BinaryIO, partial: Path, wanted: Descriptor, *, fetch: Fetch, parts: Parts | None, progress: Progress
) -> int:
    """Continue or begin the partial file until it is the wanted blob; the number of bytes fetched.

    Wrong bytes cost one clean fetch from the start. Raises IntegrityFailure when that is wrong too, and keeps
    nothing then; NoRoom; what fetch and parts raise, and keeps what came in order.
    """
    try:
        return _fill(file, partial, wanted, fetch=fetch, parts=parts, progress=progress)
    except IntegrityFailure:
        file.truncate(0)
        progress.note("the bytes were not right; fetching the image once more")
    try:
        return _fill(file, partial, wanted, fetch=fetch, parts=parts, progress=progress)
    except IntegrityFailure:
        files.remove_file(partial)
        raise


def _fill(
    file: BinaryIO, partial: Path, wanted: Descriptor, *, fetch: Fetch, parts: Parts | None, progress: Progress
) -> int:
    verifier = Verifier(wanted)
    if os.fstat(file.fileno()).st_size > wanted.size:
        file.truncate(0)
    file.seek(0)
    while block := file.read(files.BLOCK):
        verifier.update(block)
    kept = verifier.seen
    files.require_space(partial.parent, wanted.size - kept + _MARGIN, "to pull the image")
    progress.begin("pull", wanted.size)
    try:
        progress.advance(kept)
        with contextlib.closing(_rest(kept, wanted.size, fetch, parts, progress)) as blocks:
            for block in blocks:
                verifier.update(block)
                file.write(block)
    finally:
        progress.end()
    verifier.finish()
    file.flush()
    return wanted.size - kept


def _rest(at: int, size: int, fetch: Fetch, parts: Parts | None, progress: Progress) -> Generator[bytes, None, None]:
    """The bytes from ``at`` on: in parts where that is worth it and served, else over one connection."""
    if parts is not None and parts.worth_it(size - at):
        with contextlib.suppress(OnlyWhole), contextlib.closing(parts.in_order(at, size, progress)) as blocks:
            for block in blocks:
                at += len(block)
                yield block
    for block in fetch(at) if at < size else ():
        progress.advance(len(block))
        yield block

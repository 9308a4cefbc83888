"""Hash a store again to find bit rot and tampering, and move damaged images where no job runs them."""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from pathlib import Path

from factory.io import files
from factory.io.below import Entry
from factory.io.progress import Advance, Progress, step
from factory.oci.digest import Digest
from factory.store.store import Store


@dataclass(frozen=True)
class Finding:
    """A damaged blob. path: its place in `quarantine/`."""

    path: Path
    why: str


def verify(store: Store, progress: Progress) -> tuple[int, tuple[Finding, ...]]:
    """Hash every blob and quarantine the damaged ones. Return how many were checked, and the damaged ones."""
    wrong: list[Finding] = []
    count = 0
    blobs = list(store.blobs())
    with step(progress, "verify", sum(_size(path) for _, path in blobs)) as advance:
        for digest, path in blobs:
            try:
                with store.holding(path) as entry:
                    why = _fault(digest, entry, advance)
            except FileNotFoundError:
                continue  # removed meanwhile
            count += 1
            if why:
                wrong.append(Finding(store.quarantine(path), why))
    return count, tuple(wrong)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _fault(digest: Digest, entry: Entry, advance: Advance) -> str:
    """Return what is wrong with a blob, or ''."""
    found = entry.folder.stat(entry.name)
    if stat.S_ISLNK(found.st_mode):
        return "it was a symbolic link"
    if not stat.S_ISREG(found.st_mode):
        return "it was not a regular file"
    try:
        with entry.folder.reading(entry.name) as descriptor:
            got = files.digest_of_open(descriptor, advance)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "the disk could not read it"
    return "" if got == digest else f"its digest is {got}, not {digest}"

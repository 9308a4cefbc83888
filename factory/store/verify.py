"""Hashing a store again: bit rot and tampering are found, and nothing wrong stays where a job would run it."""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from pathlib import Path

from factory.io import files
from factory.io.below import Entry
from factory.io.progress import Progress
from factory.oci.digest import Digest
from factory.store.store import Store


@dataclass(frozen=True)
class Finding:
    """A blob that is not what its name says; path is where it lies now."""

    path: Path
    why: str


def verify(store: Store, progress: Progress) -> tuple[int, tuple[Finding, ...]]:
    """Hash every blob; wrong ones are moved to `quarantine/`. Returns how many were looked at, and the wrong ones."""
    wrong: list[Finding] = []
    count = 0
    for digest, path in store.blobs():
        try:
            with store.holding(path) as entry:
                why = _fault(digest, entry, progress)
        except FileNotFoundError:
            continue  # somebody removed it meanwhile
        count += 1
        if why:
            wrong.append(Finding(store.quarantine(path), why))
    return count, tuple(wrong)


def _fault(digest: Digest, entry: Entry, progress: Progress) -> str:
    """What is wrong with a blob; '' when it is what its name says."""
    found = entry.folder.stat(entry.name)
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link stood in its place"
    if not stat.S_ISREG(found.st_mode):
        return "it was no ordinary file"
    progress.begin(f"verify {digest.short}", found.st_size)
    try:
        with entry.folder.reading(entry.name) as descriptor:
            got = files.digest_of_open(descriptor)
        progress.advance(found.st_size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "the disk could not read it"
    finally:
        progress.end()
    return "" if got == digest else f"its bytes are {got}, not {digest}"

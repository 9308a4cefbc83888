"""Hashing a store again: bit rot and tampering are found, and nothing wrong stays where a job would run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.io import files
from factory.io.progress import Progress
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
        count += 1
        if path.is_symlink():
            wrong.append(Finding(store.quarantine(path), "a symbolic link stood in its place"))
            continue
        size = path.stat().st_size
        progress.begin(f"verify {digest.short}", size)
        found, _ = files.digest_of(path)
        progress.advance(size)
        progress.end()
        if found != digest:
            wrong.append(Finding(store.quarantine(path), f"its bytes are {found}, not {digest}"))
    return count, tuple(wrong)

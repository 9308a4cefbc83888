"""Compare: what changed between two images, from what their releases say and from their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.delta.index import index_image
from factory.delta.match import compare as overlap_of
from factory.errors import NotFound
from factory.io.progress import Progress
from factory.release import Release


@dataclass(frozen=True)
class Bytes:
    """What somebody with the first image would have to fetch for the second; sizes in bytes."""

    reused: int
    missing: int


def changed_parts(before: Release, after: Release) -> tuple[tuple[str, str, str], ...]:
    """(what, before, after) for everything that the two releases say differently of themselves."""
    said_before = {**before.parts, "version": str(before.tag), "tested": before.tested, "size": str(before.sif.size)}
    said_after = {**after.parts, "version": str(after.tag), "tested": after.tested, "size": str(after.sif.size)}
    names = sorted({*said_before, *said_after})
    rows = ((name, said_before.get(name, ""), said_after.get(name, "")) for name in names)
    return tuple(row for row in rows if row[1] != row[2])


def shared_bytes(before: Path, after: Path, progress: Progress) -> Bytes:
    """Index both files and compare. Raises NotFound, IntegrityFailure when one is no SIF."""
    for path in (before, after):
        if not path.is_file():
            raise NotFound(f"there is no image {path}")
    found = overlap_of(index_image(before, progress), index_image(after, progress))
    return Bytes(found.reused, found.missing)

"""Compare two images by their releases' metadata and by their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.delta.index import ChunkIndex, index_image, largest_index
from factory.delta.match import compare as overlap_of
from factory.errors import FactoryError, IntegrityFailure, NotFound
from factory.io import plain
from factory.io.progress import Progress
from factory.records import sbom
from factory.records.candidate import Candidate
from factory.records.release import Release
from factory.registry.protocol import Manifest, Registry, read_all
from factory.sif.packages import PackageChanges, Packages, package_changes


@dataclass(frozen=True)
class Bytes:
    """Bytes of the second image that someone with the first can reuse, and those left to fetch."""

    reused: int
    missing: int


def changed_parts(before: Release, after: Release) -> tuple[tuple[str, str, str], ...]:
    """Return (name, before, after) for every part and property that differs between two releases."""
    old = {**before.parts, "version": str(before.tag), "tested": before.tested, "size": str(before.sif.size)}
    new = {**after.parts, "version": str(after.tag), "tested": after.tested, "size": str(after.sif.size)}
    names = sorted({*old, *new})
    rows = ((name, old.get(name, ""), new.get(name, "")) for name in names)
    return tuple(row for row in rows if row[1] != row[2])


def index_of(release: Release, registry: Registry) -> ChunkIndex | None:
    """Return the chunk index of a release; None if it has none, or if it cannot be fetched or read."""
    if release.chunks is None or release.chunks.size > largest_index(release.sif.size):
        return None
    try:
        content = read_all(registry.blob(release.recipe, release.chunks), release.chunks.size)
        index = ChunkIndex.decode(content)
    except FactoryError:
        return None
    return index if (index.digest, index.size) == (release.sif.digest, release.sif.size) else None


def packages_of(release: Release, registry: Registry) -> Packages | None:
    """Return the packages in a release's bill of materials; None if it has none that can be fetched and read."""
    try:
        for referrer in registry.referrers(release.recipe, release.digest, sbom.MEDIA_TYPE):
            (layer,) = Manifest.read(registry.manifest(release.recipe, str(referrer.digest))).layers
            return sbom.read(read_all(registry.blob(release.recipe, layer), sbom.LIMIT))
    except (FactoryError, ValueError):
        pass
    return None


@dataclass(frozen=True)
class Changes:
    """What a candidate changes against a release: bytes to fetch, and changed packages in words; None if unknown."""

    update: int | None
    packages: tuple[str, ...] | None


def changes_since(made: Candidate, before: Release, registry: Registry) -> Changes:
    """Compare a candidate with an earlier release by their chunk indexes and bills of materials."""
    try:
        want = ChunkIndex.decode(plain.read_plain(made.chunks, largest_index(made.sif.size)))
    except (OSError, IntegrityFailure):
        want = None
    found = shared_bytes(index_of(before, registry) if want is not None else None, want)
    try:
        packages = sbom.read(plain.read_plain(made.sbom, sbom.LIMIT))
    except (OSError, IntegrityFailure):
        packages = None
    had = packages_of(before, registry) if packages is not None else None
    changed = package_lines(package_changes(had, packages)) if had is not None and packages is not None else None
    return Changes(found.missing if found is not None else None, changed)


def package_lines(changes: PackageChanges) -> tuple[str, ...]:
    """Return a line per change: new versions first, then added, then removed packages."""
    return (
        *(f"{one.name} {one.before} -> {one.after} ({one.manager})" for one in changes.changed),
        *(f"+ {one.name} {one.version} ({one.manager})" for one in changes.added),
        *(f"- {one.name} {one.version} ({one.manager})" for one in changes.removed),
    )


def shared_bytes(have: ChunkIndex | None, want: ChunkIndex | None) -> Bytes | None:
    """Return what someone with the first image can reuse for the second; None if an index is missing."""
    if have is None or want is None:
        return None
    found = overlap_of(have, want)
    return Bytes(found.reused, found.missing)


def index_of_file(path: Path, progress: Progress) -> ChunkIndex:
    """Compute the chunk index of a local file. Raises NotFound, IntegrityFailure if it is not a SIF."""
    if not path.is_file():
        raise NotFound(f"there is no image {path}")
    return index_image(path.resolve(), progress)

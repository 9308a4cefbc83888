"""What the registry itself holds of a recipe: the truth that the catalog is a copy of."""

from __future__ import annotations

from factory.catalog import Catalog, Entry
from factory.errors import IntegrityFailure, NotFound
from factory.names import LATEST, BuildTag
from factory.registry.protocol import Manifest, Registry
from factory.release import Release, from_manifest


def builds(registry: Registry, recipe: str, version: str = "") -> tuple[BuildTag, ...]:
    """The immutable tags of a recipe, of one version if given, lowest build first."""
    found = (BuildTag.parse(tag) for tag in registry.tags(recipe))
    return tuple(sorted(tag for tag in found if tag is not None and version in ("", tag.version)))


def next_build(registry: Registry, recipe: str, version: str) -> int:
    """The first build number that no tag of this version has taken, nor any before it."""
    taken = builds(registry, recipe, version)
    return taken[-1].build + 1 if taken else 1


def newest(registry: Registry, recipe: str, version: str) -> Release | None:
    """The release of a version with the highest build number; None when there is none."""
    taken = builds(registry, recipe, version)
    return release_at(registry, recipe, str(taken[-1])) if taken else None


def release_at(registry: Registry, recipe: str, tag: str) -> Release | None:
    """The release that a tag names; None when there is no such tag or when it is no image of ours."""
    try:
        raw = registry.manifest(recipe, tag)
        return from_manifest(recipe, Manifest.read(raw), raw.descriptor.digest)
    except (NotFound, IntegrityFailure):
        return None


def caught_up(registry: Registry, entry: Entry, version: str) -> Entry:
    """The catalog's entry with what was published and did not reach it: a run died before its last step."""
    known = {str(release.tag) for release in entry.releases}
    for tag in builds(registry, entry.name, version):
        if str(tag) in known:
            continue
        release = release_at(registry, entry.name, str(tag))
        if release is not None:
            moving = {moved: str(tag) for moved in (version, LATEST) if _points_at(registry, release, moved)}
            entry = entry.with_release(release, moving)
    return entry


def _points_at(registry: Registry, release: Release, tag: str) -> bool:
    there = registry.head(release.recipe, tag)
    return there is not None and there.digest == release.digest


def reconciled(registry: Registry, catalog: Catalog, versions: dict[str, str]) -> Catalog:
    """The catalog, caught up for these recipes (name to version); one request for each that is up to date."""
    for name, version in versions.items():
        entry = caught_up(registry, catalog.entry(name), version)
        if entry != catalog.entry(name):
            catalog = catalog.with_entry(entry)
    return catalog

"""What the registry itself holds of a recipe: the truth that the catalog is a copy of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from factory.catalog import Catalog, Entry
from factory.digest import Descriptor
from factory.errors import IntegrityFailure, NotFound
from factory.names import LATEST, BuildTag
from factory.registry.protocol import Manifest, Registry
from factory.release import Release, from_manifest

_AT_ONCE = 8  # recipes that are asked about at the same time


def builds(registry: Registry, recipe: str, version: str = "") -> tuple[BuildTag, ...]:
    """The immutable tags of a recipe, of one version if given, lowest build first."""
    found = (BuildTag.parse(tag) for tag in registry.tags(recipe))
    return tuple(sorted(tag for tag in found if tag is not None and version in ("", tag.version)))


def next_build(registry: Registry, recipe: str, version: str) -> int:
    """The first build number that no tag of this version has taken, nor any before it."""
    taken = builds(registry, recipe, version)
    return taken[-1].build + 1 if taken else 1


def of_bytes(registry: Registry, recipe: str, version: str, sif: Descriptor) -> Release | None:
    """The release of a version that is these bytes, the newest one if several are; None when none is."""
    if not registry.has_blob(recipe, sif):
        return None
    for tag in reversed(builds(registry, recipe, version)):
        release = build_at(registry, recipe, tag)
        if release is not None and release.sif.digest == sif.digest:
            return release
    return None


def after(registry: Registry, release: Release) -> Release | None:
    """The newest release of the same version with a higher build number; None when there is none."""
    for tag in reversed(builds(registry, release.recipe, release.tag.version)):
        found = build_at(registry, release.recipe, tag) if tag > release.tag else None
        if found is not None:
            return found
    return None


def release_at(registry: Registry, recipe: str, tag: str) -> Release | None:
    """The release that a tag names; None when there is no such tag or when it is no image of ours."""
    try:
        raw = registry.manifest(recipe, tag)
        release = from_manifest(recipe, Manifest.read(raw), raw.descriptor.digest)
    except (NotFound, IntegrityFailure):
        return None
    return release if release.tag.build else None


def build_at(registry: Registry, recipe: str, tag: BuildTag) -> Release | None:
    """The release of an immutable tag; None when another image was given that tag by hand."""
    release = release_at(registry, recipe, str(tag))
    return release if release is not None and release.tag == tag else None


def caught_up(registry: Registry, entry: Entry, version: str) -> Entry:
    """The catalog's entry with what the registry has of a version: its releases, and where the moving tags point.

    A run may have died before its last step, or another publisher have written at the same time.
    """
    taken = builds(registry, entry.name, version)
    entry = _with_builds(registry, entry, taken)
    return _with_moving_tags(registry, entry, version) if taken else entry


def reconciled(registry: Registry, catalog: Catalog, versions: Mapping[str, str]) -> Catalog:
    """The catalog with the releases of these recipes (name to version) that it lacks, several asked at once.

    One request for each recipe of which it lacks nothing. Only where a release is found, it is looked where the moving
    tags point: they were written after the release, and the catalog after them.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda name: _completed(registry, catalog.entry(name), versions[name]), versions)
        for entry in found:
            if entry != catalog.entry(entry.name):
                catalog = catalog.with_entry(entry)
    return catalog


def _completed(registry: Registry, entry: Entry, version: str) -> Entry:
    found = _with_builds(registry, entry, builds(registry, entry.name, version))
    return _with_moving_tags(registry, found, version) if found != entry else entry


def _with_builds(registry: Registry, entry: Entry, taken: Sequence[BuildTag]) -> Entry:
    """The entry with the releases of these tags; those that it has are not asked for again: such a tag never moves."""
    known = {release.tag for release in entry.releases}
    for tag in taken:
        release = build_at(registry, entry.name, tag) if tag not in known else None
        entry = entry.with_release(release) if release is not None else entry
    return entry


def _with_moving_tags(registry: Registry, entry: Entry, version: str) -> Entry:
    heads = {tag: registry.head(entry.name, tag) for tag in (version, LATEST)}
    digests = {tag: there.digest for tag, there in heads.items() if there is not None}
    pointed = {tag: str(one.tag) for tag, digest in digests.items() for one in entry.releases if one.digest == digest}
    return replace(entry, tags={**entry.tags, **pointed})

"""A recipe's releases as the registry itself holds them; the catalog is a copy of this."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from factory.errors import IntegrityFailure, NotFound
from factory.io import threads
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST, BuildTag
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release, from_manifest, index_tag
from factory.registry.image_index import ImageIndex, Member
from factory.registry.protocol import INDEX, MANIFEST, Manifest, RawManifest, Registry

_AT_ONCE = 8  # recipes looked up concurrently


@dataclass(frozen=True)
class ReleaseSet:
    """The content of one build number: an image, or an index with one image for each architecture.

    raw: the image's manifest, or the index. members: the images as an index names them. releases: the same images, all
    with the set's tag, although the manifest of an image that was carried over has the number it was built for.
    """

    tag: BuildTag
    raw: RawManifest
    members: tuple[Member, ...]
    releases: tuple[Release, ...]

    @property
    def digest(self) -> Digest:
        """The digest that the tag names."""
        return self.raw.descriptor.digest

    @property
    def is_index(self) -> bool:
        """True if the tag names an index, False if it names an image manifest."""
        return self.raw.descriptor.media_type == INDEX

    @property
    def created(self) -> str:
        """The build time of its newest image, ISO 8601, UTC."""
        return max(release.created for release in self.releases)


def builds(registry: Registry, recipe: str, version: str = "") -> tuple[BuildTag, ...]:
    """Return a recipe's immutable tags, of one version if given, lowest build first."""
    found = (BuildTag.parse(tag) for tag in registry.tags(recipe))
    return tuple(sorted(tag for tag in found if tag is not None and version in ("", tag.version)))


def next_build(version: str, taken: Sequence[BuildTag]) -> BuildTag:
    """Return the next free build number of a version. taken: from ``builds``."""
    return BuildTag(version, taken[-1].build + 1 if taken else 1)


def named(registry: Registry, recipe: str, tag: str) -> ReleaseSet | None:
    """Return the release of a tag, or None if there is no such tag or singfactory did not write it.

    Sends one request, and one for each image of an index. An index with too many images is not followed.
    """
    try:
        raw = registry.manifest(recipe, tag)
        if raw.descriptor.media_type == INDEX:
            return _read_index(registry, recipe, raw)
        release = from_manifest(recipe, Manifest.read(raw), raw.descriptor.digest)
    except (NotFound, IntegrityFailure):
        return None
    if not release.tag.build:
        return None
    return ReleaseSet(release.tag, raw, (Member(raw.descriptor, release.arch),), (release,))


def set_at(registry: Registry, recipe: str, tag: BuildTag) -> ReleaseSet | None:
    """Return the release of an immutable tag, or None if something else was pushed under that tag."""
    found = named(registry, recipe, str(tag))
    return found if found is not None and found.tag == tag else None


def of_bytes(registry: Registry, recipe: str, version: str, sif: Descriptor, arch: str) -> Release | None:
    """Return the newest release of a version with these bytes, or None."""
    if not registry.has_blob(recipe, sif):
        return None
    for tag in reversed(builds(registry, recipe, version)):
        found = set_at(registry, recipe, tag)
        for release in found.releases if found is not None else ():
            if (release.sif.digest, release.arch) == (sif.digest, arch):
                return release
    return None


def newest_images(
    registry: Registry, recipe: str, taken: Sequence[BuildTag], archs: Collection[str]
) -> dict[str, tuple[Member, Release]]:
    """Return the newest image of each architecture that has one. taken: lowest build first.

    An index ends the search, because it lists all earlier images. Single images do not: older versions of singfactory
    gave each architecture its own build number.
    """
    images: dict[str, tuple[Member, Release]] = {}
    for tag in reversed(taken):
        if len(images) == len(archs):
            break
        found = set_at(registry, recipe, tag)
        if found is None:
            continue
        for member, release in zip(found.members, found.releases):
            if release.arch in archs and member.manifest.media_type == MANIFEST:
                images.setdefault(release.arch, (member, release))
        if found.is_index:
            break
    return images


def after(registry: Registry, recipe: str, tag: BuildTag) -> ReleaseSet | None:
    """Return the release with the highest build number of the same version, or None if none is higher than tag's."""
    for other in reversed(builds(registry, recipe, tag.version)):
        found = set_at(registry, recipe, other) if other > tag else None
        if found is not None:
            return found
    return None


def with_build(registry: Registry, entry: Entry, tag: BuildTag) -> Entry:
    """Return the catalog's entry with the releases of an immutable tag."""
    found = set_at(registry, entry.name, tag)
    for release in found.releases if found is not None else ():
        entry = entry.with_release(release)
    return entry


def caught_up(registry: Registry, entry: Entry, version: str) -> Entry:
    """Return the catalog's entry with the registry's releases of a version and the current moving tags.

    A run may have died before its last step, or another publisher may have written concurrently.
    """
    taken = builds(registry, entry.name, version)
    entry = _with_builds(registry, entry, taken)
    return _with_moving_tags(registry, entry, version) if taken else entry


def reconciled(registry: Registry, catalog: Catalog, versions: Mapping[str, str]) -> Catalog:
    """Return the catalog with the missing releases of these recipes (name to version), looked up concurrently.

    Sends one request for each recipe that lacks nothing. The moving tags are read only if a release was missing: they
    are written after the release, and the catalog after them.
    """
    known = catalog
    for entry in threads.mapped(
        lambda name: _completed(registry, known.entry(name), versions[name]), versions, _AT_ONCE
    ):
        if entry != catalog.entry(entry.name):
            catalog = catalog.with_entry(entry)
    return catalog


def _completed(registry: Registry, entry: Entry, version: str) -> Entry:
    found = _with_builds(registry, entry, builds(registry, entry.name, version))
    return _with_moving_tags(registry, found, version) if found != entry else entry


def _read_index(registry: Registry, recipe: str, raw: RawManifest) -> ReleaseSet | None:
    """Return the set of an index. Raises NotFound, and IntegrityFailure for members that were not written by us."""
    index = ImageIndex.read(raw)
    tag = index_tag(recipe, index.annotations)
    if tag is None:
        return None
    members = tuple(index.members)
    return ReleaseSet(tag, raw, members, tuple(_member(registry, recipe, tag, member) for member in members))


def _member(registry: Registry, recipe: str, tag: BuildTag, member: Member) -> Release:
    raw = registry.manifest(recipe, str(member.manifest.digest))
    release = from_manifest(recipe, Manifest.read(raw), raw.descriptor.digest)
    own = release.tag
    if (
        (raw.descriptor.media_type, raw.descriptor.size) != (MANIFEST, member.manifest.size)
        or release.arch != member.arch
        or own.version != tag.version
        or not 1 <= own.build <= tag.build
    ):
        raise IntegrityFailure(
            f"{recipe}:{tag} was not written by singfactory", why=f"{member.manifest.digest} belongs to another release"
        )
    return replace(release, tag=tag)


def _with_builds(registry: Registry, entry: Entry, taken: Sequence[BuildTag]) -> Entry:
    """Return the entry with all of these tags. Known tags are not looked up again, because they never move."""
    known = {release.tag for release in entry.releases}
    for tag in taken:
        entry = with_build(registry, entry, tag) if tag not in known else entry
    return entry


def _with_moving_tags(registry: Registry, entry: Entry, version: str) -> Entry:
    pointed = {tag: _pointed(registry, entry, tag) for tag in (version, LATEST)}
    return replace(entry, tags={**entry.tags, **{tag: str(build) for tag, build in pointed.items() if build}})


def _pointed(registry: Registry, entry: Entry, tag: str) -> BuildTag | None:
    """Return the entry's immutable tag that names the same release as a moving tag, or None."""
    there = registry.head(entry.name, tag)
    if there is None:
        return None
    digests, build = {there.digest}, None
    if there.media_type == INDEX:
        try:
            index = ImageIndex.read(registry.manifest(entry.name, str(there.digest)))
        except (NotFound, IntegrityFailure):
            return None
        digests, build = {member.manifest.digest for member in index.members}, index_tag(entry.name, index.annotations)
        if build is None:
            return None
    known: dict[BuildTag, set[Digest]] = {}
    for release in entry.releases:
        known.setdefault(release.tag, set()).add(release.digest)
    return next((one for one, names in known.items() if names == digests and build in (None, one)), None)

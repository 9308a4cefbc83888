"""What the registry itself holds of a recipe: the truth that the catalog is a copy of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from factory.errors import IntegrityFailure, NotFound
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST, BuildTag
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release, from_manifest, index_tag
from factory.registry.image_index import ImageIndex, Member
from factory.registry.protocol import INDEX, MANIFEST, Manifest, RawManifest, Registry

_AT_ONCE = 8  # recipes that are asked about at the same time


@dataclass(frozen=True)
class ReleaseSet:
    """What one build number names: one image, or an index of one image for each architecture.

    raw: the image's manifest, or the index. Each of releases has the set's tag, although an image that was carried
    over says the number that it was built for; members are the same images as an index names them.
    """

    tag: BuildTag
    raw: RawManifest
    members: tuple[Member, ...]
    releases: tuple[Release, ...]

    @property
    def digest(self) -> Digest:
        """Of what the tag names."""
        return self.raw.descriptor.digest

    @property
    def is_index(self) -> bool:
        """False where the tag names an image manifest."""
        return self.raw.descriptor.media_type == INDEX

    @property
    def created(self) -> str:
        """When its youngest image was built; ISO 8601, UTC."""
        return max(release.created for release in self.releases)


def builds(registry: Registry, recipe: str, version: str = "") -> tuple[BuildTag, ...]:
    """The immutable tags of a recipe, of one version if given, lowest build first."""
    found = (BuildTag.parse(tag) for tag in registry.tags(recipe))
    return tuple(sorted(tag for tag in found if tag is not None and version in ("", tag.version)))


def next_build(version: str, taken: Sequence[BuildTag]) -> BuildTag:
    """The first build number of a version that comes after all that are taken. taken: as ``builds`` gives them."""
    return BuildTag(version, taken[-1].build + 1 if taken else 1)


def named(registry: Registry, recipe: str, tag: str) -> ReleaseSet | None:
    """What a tag names; None when there is no such tag or when it is nothing of ours.

    One request, and one for each image of an index; of one with more images than ours have, only the first.
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
    """What an immutable tag names; None when something else was given that tag by hand."""
    found = named(registry, recipe, str(tag))
    return found if found is not None and found.tag == tag else None


def of_bytes(registry: Registry, recipe: str, version: str, sif: Descriptor, arch: str) -> Release | None:
    """The release of a version that is these bytes, the newest one if several are; None when none is."""
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
    """The images of the newest build of each architecture that has one, by architecture. taken: lowest build first.

    An index ends the search, since it lists all that there was before it. Single images do not: older factories gave
    each architecture build numbers of its own.
    """
    images: dict[str, tuple[Member, Release]] = {}
    for tag in reversed(taken):
        if len(images) == len(archs):
            break
        found = set_at(registry, recipe, tag)
        if found is None:
            continue
        for member, release in zip(found.members, found.releases, strict=True):
            if release.arch in archs and member.manifest.media_type == MANIFEST:
                images.setdefault(release.arch, (member, release))
        if found.is_index:
            break
    return images


def after(registry: Registry, recipe: str, tag: BuildTag) -> ReleaseSet | None:
    """What the highest build number of the same version names; None when none is higher than this tag's."""
    for other in reversed(builds(registry, recipe, tag.version)):
        found = set_at(registry, recipe, other) if other > tag else None
        if found is not None:
            return found
    return None


def with_build(registry: Registry, entry: Entry, tag: BuildTag) -> Entry:
    """The catalog's entry with all that an immutable tag names."""
    found = set_at(registry, entry.name, tag)
    for release in found.releases if found is not None else ():
        entry = entry.with_release(release)
    return entry


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


def _read_index(registry: Registry, recipe: str, raw: RawManifest) -> ReleaseSet | None:
    """The set that an index of ours names. Raises NotFound, IntegrityFailure for members that we would not list."""
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
        raise IntegrityFailure(f"{recipe}:{tag} is not an index of ours", why=f"{member.manifest.digest} is of another")
    return replace(release, tag=tag)


def _with_builds(registry: Registry, entry: Entry, taken: Sequence[BuildTag]) -> Entry:
    """The entry with all of these tags; those that it has are not asked for again: such a tag never moves."""
    known = {release.tag for release in entry.releases}
    for tag in taken:
        entry = with_build(registry, entry, tag) if tag not in known else entry
    return entry


def _with_moving_tags(registry: Registry, entry: Entry, version: str) -> Entry:
    pointed = {tag: _pointed(registry, entry, tag) for tag in (version, LATEST)}
    return replace(entry, tags={**entry.tags, **{tag: str(build) for tag, build in pointed.items() if build}})


def _pointed(registry: Registry, entry: Entry, tag: str) -> BuildTag | None:
    """The immutable tag, of those in the entry, that names the same as a moving one."""
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

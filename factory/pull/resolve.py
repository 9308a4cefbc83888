"""From what a user names to exactly one release: tags are looked at once, digests decide from then on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound
from factory.oci.digest import Descriptor
from factory.oci.names import LATEST, BuildTag, Reference
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release, from_manifest, index_tag
from factory.registry.image_index import platforms
from factory.registry.protocol import DOCKER_LIST, INDEX, Manifest, RawManifest, Registry

_SHOWN = 8  # tags or architectures that an error lists


@dataclass(frozen=True)
class Resolved:
    """One release, the tags that the user should find it under, and what its users should be told.

    told: only the catalog says which SIF it is; its manifest has not been read. others: what else the catalog has of
    the recipe.
    """

    release: Release
    tags: tuple[str, ...]
    notice: str = ""
    told: bool = False
    others: tuple[Release, ...] = ()


def resolve(reference: Reference, registry: Registry, arch: str) -> Resolved:
    """Find the release that a reference names. Raises NotFound, with what there is instead."""
    catalog = _catalog(registry)
    entry = catalog.entry(reference.name)
    if entry.status == "withdrawn" and reference.digest is None:
        raise NotFound(
            f"{reference.name} is withdrawn",
            why=entry.note or "its maintainers do not want it to be used any more",
            fix=f"an experiment that must repeat it names the digest: {reference.name}@sha256:…",
        )
    notice = ""
    if entry.unreadable:
        notice = f"the catalog's entry for {reference.name} cannot be read ({entry.unreadable}): its tags are asked"
    elif entry.status != "active":
        notice = f"{reference.name} is {entry.status}" + (f": {entry.note}" if entry.note else "")
    wanted = reference.tag or LATEST
    release = None if reference.digest else entry.release(wanted, arch) or _numbered_apart(entry, wanted, arch)
    told = release is not None
    if release is None:
        release = _from_registry(reference, registry, catalog, arch)
    own = (str(release.tag),) if release.tag.build else ()
    if reference.digest is not None and not reference.tag:
        tags = own or (f"sha256-{release.digest.hex}",)
    else:
        tags = tuple(dict.fromkeys((wanted, *own)))
    return Resolved(release, tags, notice, told, entry.releases)


def confirm(release: Release, registry: Registry) -> Release:
    """What the manifest of a release says that only the catalog told of. Raises IntegrityFailure for another image."""
    raw = registry.manifest(release.recipe, str(release.digest))
    found = from_manifest(release.recipe, Manifest.read(raw), raw.descriptor.digest)
    sif = found.sif
    if (sif.digest, sif.size) != (release.sif.digest, release.sif.size):
        raise IntegrityFailure(
            f"the catalog of {registry.describe()} is wrong about {release.recipe}:{release.tag}",
            why=f"it says {release.sif.digest}, the manifest {sif.digest}",
            fix=f"singfactory pull {release.recipe}@{release.digest}, and tell whoever runs the factory",
        )
    return found


def _catalog(registry: Registry) -> Catalog:
    """The catalog, or an empty one: a namespace without a readable catalog still has images."""
    try:
        return catalogs.read(registry)
    except (IntegrityFailure, AccessDenied):  # some registries refuse what does not exist
        return Catalog()


def _numbered_apart(entry: Entry, tag: str, arch: str) -> Release | None:
    """Where a moving tag stands on another architecture's number: the newest of this one, of the same version.

    Older factories gave each architecture build numbers of its own.
    """
    build = BuildTag.parse(entry.tags.get(tag, ""))
    if build is None or all(release.tag != build for release in entry.releases):
        return None
    own = (one for one in reversed(entry.releases) if (one.tag.version, one.arch) == (build.version, arch))
    return next(own, None)


def _from_registry(reference: Reference, registry: Registry, catalog: Catalog, arch: str) -> Release:
    wanted = str(reference.digest or reference.tag or LATEST)
    try:
        raw = registry.manifest(reference.name, wanted)
    except NotFound as error:
        raise _not_found(reference, registry, catalog) from error
    if raw.descriptor.media_type in (INDEX, DOCKER_LIST):
        return _from_index(raw, reference, registry, arch)
    release = from_manifest(reference.name, Manifest.read(raw), raw.descriptor.digest)
    if reference.digest is None and release.arch not in ("", arch):
        raise _not_for(reference, arch, [release.arch])
    return replace(release, arch=release.arch or arch)


def _from_index(raw: RawManifest, reference: Reference, registry: Registry, arch: str) -> Release:
    """The image for an architecture, under the tag of the index where that is ours."""
    offered = list(platforms(raw))
    entry = next((entry for has, entry in offered if has == arch), None)
    if entry is None:
        raise _not_for(reference, arch, [has for has, _ in offered])
    image = registry.manifest(reference.name, str(Descriptor.from_json(entry).digest))
    release = from_manifest(reference.name, Manifest.read(image), image.descriptor.digest)
    if release.arch not in ("", arch):
        raise _not_for(reference, arch, [release.arch])
    annotations = raw.json().get("annotations")
    tag = index_tag(reference.name, annotations) if isinstance(annotations, dict) else None
    return replace(release, arch=arch, tag=tag or release.tag)


def _not_for(reference: Reference, arch: str, offered: Sequence[str]) -> NotFound:
    shown = ", ".join(dict.fromkeys(arch[:40] for arch in offered[:_SHOWN])) or "nothing"
    return NotFound(f"{reference} is not there for {arch}", why=f"there is: {shown}")


def _not_found(reference: Reference, registry: Registry, catalog: Catalog) -> FactoryError:
    """Say what there is: the tags of the recipe, or recipes with a similar name."""
    tags = _tags(registry, reference.name)
    where = registry.describe()
    if tags:
        shown = [tag for tag in tags if not tag.startswith("sha256-")]
        return NotFound(
            f"{reference} does not exist in {where}", why=f"{reference.name} has {', '.join(shown[-_SHOWN:])}"
        )
    near = difflib.get_close_matches(reference.name, catalog.entries, n=3)
    return NotFound(
        f"there is no image {reference.name} in {where}",
        why=f"did you mean {' or '.join(near)}?" if near else "",
        fix="singfactory list shows what there is",
    )


def _tags(registry: Registry, name: str) -> tuple[str, ...]:
    try:
        return tuple(registry.tags(name))
    except FactoryError:
        return ()

"""From what a user names to exactly one release: tags are looked at once, digests decide from then on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from factory import catalog as catalogs
from factory.catalog import Catalog
from factory.digest import Descriptor
from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound
from factory.names import LATEST, Reference
from factory.registry.protocol import DOCKER_LIST, INDEX, Manifest, RawManifest, Registry
from factory.release import Release, from_manifest, sif_layer


@dataclass(frozen=True)
class Resolved:
    """One release, the tags that the user should find it under, and what its users should be told.

    told: only the catalog says which SIF it is; its manifest has not been read.
    """

    release: Release
    tags: tuple[str, ...]
    notice: str = ""
    told: bool = False


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
    if entry.status != "active":
        notice = f"{reference.name} is {entry.status}" + (f": {entry.note}" if entry.note else "")
    wanted = reference.tag or LATEST
    release = None if reference.digest else entry.release(wanted, arch)
    told = release is not None
    if release is None:
        release = _from_registry(reference, registry, catalog, arch)
    own = (str(release.tag),) if release.tag.build else ()
    if reference.digest is not None and not reference.tag:
        tags = own or (f"sha256-{release.digest.hex}",)
    else:
        tags = tuple(dict.fromkeys((wanted, *own)))
    return Resolved(release, tags, notice, told)


def confirm(release: Release, registry: Registry) -> None:
    """Read the manifest of a release that only the catalog told of. Raises IntegrityFailure when it differs."""
    manifest = Manifest.read(registry.manifest(release.recipe, str(release.digest)))
    sif = sif_layer(manifest)
    if (sif.digest, sif.size) != (release.sif.digest, release.sif.size):
        raise IntegrityFailure(
            f"the catalog of {registry.describe()} is wrong about {release.recipe}:{release.tag}",
            why=f"it says {release.sif.digest}, the manifest {sif.digest}",
            fix=f"singfactory pull {release.recipe}@{release.digest}, and tell whoever runs the factory",
        )


def _catalog(registry: Registry) -> Catalog:
    """The catalog, or an empty one: a namespace without a readable catalog still has images."""
    try:
        return catalogs.read(registry)
    except (IntegrityFailure, AccessDenied):  # some registries refuse what does not exist
        return Catalog()


def _from_registry(reference: Reference, registry: Registry, catalog: Catalog, arch: str) -> Release:
    wanted = str(reference.digest or reference.tag or LATEST)
    try:
        raw = registry.manifest(reference.name, wanted)
    except NotFound as error:
        raise _not_found(reference, registry, catalog) from error
    if raw.descriptor.media_type in (INDEX, DOCKER_LIST):
        raw = registry.manifest(reference.name, str(_for_arch(raw, arch, reference).digest))
    release = from_manifest(reference.name, Manifest.read(raw), raw.descriptor.digest)
    if reference.digest is None and release.arch not in ("", arch):
        raise NotFound(f"{reference} is not there for {arch}", why=f"there is: {release.arch}")
    return replace(release, arch=release.arch or arch)


def _for_arch(raw: RawManifest, arch: str, reference: Reference) -> Descriptor:
    members = raw.json().get("manifests")
    offered = []
    for member in members if isinstance(members, list) else []:
        platform = member.get("platform") if isinstance(member, dict) else None
        has = platform.get("architecture") if isinstance(platform, dict) else None
        if has == arch:
            return Descriptor.from_json(member)
        offered.append(str(has))
    raise NotFound(f"{reference} is not there for {arch}", why=f"there is: {', '.join(offered) or 'nothing'}")


def _not_found(reference: Reference, registry: Registry, catalog: Catalog) -> FactoryError:
    """Say what there is: the tags of the recipe, or recipes with a similar name."""
    tags = _tags(registry, reference.name)
    where = registry.describe()
    if tags:
        shown = [tag for tag in tags if not tag.startswith("sha256-")]
        return NotFound(f"{reference} does not exist in {where}", why=f"{reference.name} has {', '.join(shown[-8:])}")
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

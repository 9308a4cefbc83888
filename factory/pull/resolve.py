"""Resolve a reference to exactly one release. A tag is read once; from then on only digests count."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound
from factory.oci.digest import Descriptor
from factory.oci.names import LATEST, BuildTag, Reference
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release, from_manifest, index_tag, undeclared_layer
from factory.registry.image_index import platforms
from factory.registry.protocol import DOCKER_LIST, INDEX, SIF_LAYER, Manifest, RawManifest, Registry
from factory.sif.header import HEADER_SIZE, begins_like_sif

_SHOWN = 8  # tags or architectures that an error lists


@dataclass(frozen=True)
class Resolved:
    """A release, and the tags to record for it in the store.

    notice: a message for the user, or ''. from_catalog: the release is what the catalog says, its manifest has not been
    read. others: the recipe's other releases in the catalog.
    """

    release: Release
    tags: tuple[str, ...]
    notice: str = ""
    from_catalog: bool = False
    others: tuple[Release, ...] = ()


def resolve(reference: Reference, registry: Registry, arch: str) -> Resolved:
    """Find the release that a reference names. Raises NotFound, which lists what exists instead."""
    catalog = _catalog(registry)
    entry = catalog.entry(reference.name)
    if entry.status == "withdrawn" and reference.digest is None:
        raise NotFound(
            f"{reference.name} is withdrawn",
            why=entry.note or "its maintainers have withdrawn it from use",
            fix=f"to repeat an experiment with it, name the digest: {reference.name}@sha256:…",
        )
    notice = ""
    if entry.unreadable:
        notice = f"cannot read the catalog's entry for {reference.name} ({entry.unreadable}); using the registry's tags"
    elif entry.status != "active":
        notice = f"{reference.name} is {entry.status}" + (f": {entry.note}" if entry.note else "")
    wanted = reference.tag or LATEST
    release = None if reference.digest else entry.release(wanted, arch) or _numbered_apart(entry, wanted, arch)
    from_catalog = release is not None
    if release is None:
        release, remark = _from_registry(reference, registry, catalog, arch)
        notice = "; ".join(filter(None, (notice, remark)))
    own = (str(release.tag),) if release.tag.build else ()
    if reference.digest is not None and not reference.tag:
        tags = own or (f"sha256-{release.digest.hex}",)
    else:
        tags = tuple(dict.fromkeys((wanted, *own)))
    return Resolved(release, tags, notice, from_catalog, entry.releases)


def confirm(release: Release, registry: Registry) -> Release:
    """Read the manifest of a release that is known from the catalog only.

    Raises IntegrityFailure if the manifest names another image than the catalog.
    """
    raw = registry.manifest(release.recipe, str(release.digest))
    found = from_manifest(release.recipe, Manifest.read(raw), raw.descriptor.digest)
    sif = found.sif
    if (sif.digest, sif.size) != (release.sif.digest, release.sif.size):
        raise IntegrityFailure(
            f"the catalog of {registry.describe()} is wrong about {release.recipe}:{release.tag}",
            why=f"the catalog says {release.sif.digest}, the manifest says {sif.digest}",
            fix=f"singfactory pull {release.recipe}@{release.digest}, and report it to the factory's maintainers",
        )
    return found


def _catalog(registry: Registry) -> Catalog:
    """Return the catalog, or an empty one if it cannot be read: images can be pulled without it."""
    try:
        return catalogs.read(registry)
    except (IntegrityFailure, AccessDenied):  # some registries answer "denied" for what does not exist
        return Catalog()


def _numbered_apart(entry: Entry, tag: str, arch: str) -> Release | None:
    """Return the newest release of this architecture and version if a moving tag names another architecture's build.

    Older factories numbered the builds of each architecture separately.
    """
    build = BuildTag.parse(entry.tags.get(tag, ""))
    if build is None or all(release.tag != build for release in entry.releases):
        return None
    own = (one for one in reversed(entry.releases) if (one.tag.version, one.arch) == (build.version, arch))
    return next(own, None)


def _from_registry(reference: Reference, registry: Registry, catalog: Catalog, arch: str) -> tuple[Release, str]:
    """Return the release and a notice for the user, or ''."""
    wanted = str(reference.digest or reference.tag or LATEST)
    try:
        raw = registry.manifest(reference.name, wanted)
    except NotFound as error:
        raise _not_found(reference, registry, catalog) from error
    if raw.descriptor.media_type in (INDEX, DOCKER_LIST):
        return _from_index(raw, reference, registry, arch)
    release, remark = _from_image(raw, reference, registry)
    if reference.digest is None and release.arch not in ("", arch):
        raise _not_for(reference, arch, [release.arch])
    return replace(release, arch=release.arch or arch), remark


def _from_image(raw: RawManifest, reference: Reference, registry: Registry) -> tuple[Release, str]:
    """Return the release of an image manifest, and a notice if only its first bytes show that it is a SIF."""
    manifest = Manifest.read(raw)
    layer, remark = undeclared_layer(manifest), ""
    if layer is not None and begins_like_sif(_first_bytes(registry, reference.name, layer)):
        remark = f"{reference} was pushed as {layer.media_type[:80]}, but it is a SIF file: taken as an image"
        manifest = replace(manifest, layers=(replace(layer, media_type=SIF_LAYER),))
    return from_manifest(reference.name, manifest, raw.descriptor.digest), remark


def _first_bytes(registry: Registry, name: str, layer: Descriptor) -> bytes:
    """Return the first bytes of a blob. The download ends there: not every registry serves ranges."""
    start = b""
    for block in registry.blob(name, layer):
        start += block
        if len(start) >= HEADER_SIZE:
            break
    return start


def _from_index(raw: RawManifest, reference: Reference, registry: Registry, arch: str) -> tuple[Release, str]:
    """Return the release for an architecture from an image index. A factory's index also says its tag."""
    offered = list(platforms(raw))
    entry = next((entry for has, entry in offered if has == arch), None)
    if entry is None:
        raise _not_for(reference, arch, [has for has, _ in offered])
    image = registry.manifest(reference.name, str(Descriptor.from_json(entry).digest))
    release, remark = _from_image(image, reference, registry)
    if release.arch not in ("", arch):
        raise _not_for(reference, arch, [release.arch])
    annotations = raw.json().get("annotations")
    tag = index_tag(reference.name, annotations) if isinstance(annotations, dict) else None
    return replace(release, arch=arch, tag=tag or release.tag), remark


def _not_for(reference: Reference, arch: str, offered: Sequence[str]) -> NotFound:
    shown = ", ".join(dict.fromkeys(arch[:40] for arch in offered[:_SHOWN])) or "nothing"
    return NotFound(f"{reference} does not exist for {arch}", why=f"available: {shown}")


def _not_found(reference: Reference, registry: Registry, catalog: Catalog) -> FactoryError:
    """Return the error for an unknown reference, with the recipe's tags or recipes of a similar name."""
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
        fix="singfactory list shows all images",
    )


def _tags(registry: Registry, name: str) -> tuple[str, ...]:
    try:
        return tuple(registry.tags(name))
    except FactoryError:
        return ()

"""Fetches the docker:// base images of a definition and lays them out for the engine.

The build then needs no registry login, every byte is verified against the recorded digest, and the engine's cache,
which the engine does not verify, is not used. The engine gets an OCI image layout in a folder (OCI image-spec,
image-layout.md). Its definition names it the same on every machine: ``From: .base/docker.io/library/debian=12``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import BuildFailed, IntegrityFailure, NotFound, RegistryFailure
from factory.io import files, plain, threads, trees
from factory.io.progress import Advance, Progress, ignore, step
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import docker_reference
from factory.recipes.definition.definition import Definition, Stage
from factory.registry.image_index import platforms
from factory.registry.protocol import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, ImageReader, RawManifest

FOLDER = ".base"  # in the working directory of a build
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_KINDS = {  # Docker media types with an OCI equivalent (OCI image-spec, media-types.md, "Compatibility Matrix")
    "application/vnd.docker.container.image.v1+json": _CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{_LAYER}+zstd",
}
_TAKEN = frozenset({*_KINDS.values(), f"{_LAYER}+zstd"})
_MOST_LAYERS = 512
_AT_ONCE = 4
_KEPT_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True)
class BasePlace:
    """Source and cache of base images. open_host: opens the registry of a host name, with the user's logins."""

    open_host: Callable[[str], ImageReader]
    kept: Path


@dataclass(frozen=True)
class Base:
    """An image layout, and its name in a definition."""

    layout: Path
    name: str


def fetched(
    definition: Definition, arch: str, place: BasePlace, progress: Progress, known: Mapping[str, str] | None = None
) -> tuple[Definition, tuple[Base, ...]]:
    """Return the definition with each docker:// image replaced by a folder, and these images, fetched if needed.

    known: the digest of the image for this architecture by the digest of its index, from base.lock.
    Raises NotFound, AccessDenied, RegistryFailure, IntegrityFailure, PlaceUnusable, BuildFailed (no image for arch).
    """
    bases = []
    for index, stage in enumerate(definition.stages):
        if stage.value("Bootstrap").lower() != "docker":
            continue
        base = fetch(_image_of(stage), arch, place, progress, known)
        bases.append(base)
        headers = {"Bootstrap": "oci", "From": base.name, "Registry": None, "Namespace": None}
        definition = definition.with_headers(index, headers)
    return definition, tuple(bases)


def left_to_engine(definition: Definition) -> str:
    """Say which images the engine fetches itself, and what does not apply to that; '' for none."""
    names = [
        f"{stage.value('Bootstrap')}://{stage.value('From')}"
        for stage in definition.stages
        if stage.value("Bootstrap").lower() in ("oras", "library", "shub")
    ]
    if not names:
        return ""
    return (
        f"the engine fetches {' '.join(names)} without your logins and plain_http; if it needs them, build from a "
        "docker:// or recipe:// image"
    )


def put_into(folder: Path, bases: tuple[Base, ...], seen: Callable[[Path], Path]) -> None:
    """Link the images under the names used by ``fetched``, for a build that starts in this folder.

    A recipe's own file of that name is removed from the copy of its folder: it could be a link to anywhere.
    """
    if trees.remove_tree(folder / FOLDER) is False:
        files.remove_file(folder / FOLDER)
    for base in bases:
        link = folder / base.name
        files.make_folder(link.parent)
        files.link_atomically(link, str(seen(base.layout.resolve())))


def _image_of(stage: Stage) -> str:
    parts = (stage.value("Registry"), stage.value("Namespace"), stage.value("From").removeprefix("//"))
    return "/".join(part.strip("/") for part in parts if part)


def fetch(image: str, arch: str, place: BasePlace, progress: Progress, known: Mapping[str, str] | None = None) -> Base:
    """Return one image as a folder, fetched if needed. image: as for docker pull. The rest is as for ``fetched``."""
    host, repository, tag = docker_reference(image)
    registry = place.open_host(host)

    def read(blob: Descriptor) -> Iterator[bytes]:
        return registry.blob(repository, blob)

    shown = f"{host}/{repository}{'@' if ':' in tag else ':'}{tag}"
    raw = _for_arch(_Wanted(registry, repository, tag, shown, (known or {}).get(tag, "")), arch)
    layout = place.kept / raw.descriptor.digest.hex
    # No colon and no @: the engine would parse the rest as a tag or a digest.
    name = f"{FOLDER}/{host.replace(':', '_')}/{repository}={tag.replace(':', '-')}"
    blobs, manifest = _manifest(raw, shown)
    _forget_old(place.kept)
    total = sum(blob.size for blob in blobs)
    if not layout.is_symlink() and layout.is_dir() and _are_whole(layout, blobs, shown, progress):
        _write_index(layout, manifest)  # again: the engine starts from it, and it may have been changed
        layout.touch()
        return Base(layout, name)
    if trees.remove_tree(layout) is False:
        files.remove_file(layout)
    with step(progress, f"fetch {shown}", total) as advance, files.temporary_folder(place.kept, layout.name) as made:
        made.chmod(0o755)
        files.require_space(made, total, f"to fetch {shown}")
        files.make_folder(made / "blobs/sha256", exact=True)
        threads.mapped(lambda blob: _fetch_blob(blob, read, made, place.kept, advance), blobs, _AT_ONCE)
        _write_index(made, manifest)
        files.rename_into_place(made, layout)
    return Base(layout, name)


@dataclass(frozen=True)
class _Wanted:
    """An image in a registry. tag: or digest. known: the digest for the architecture in base.lock, '' for none."""

    registry: ImageReader
    repository: str
    tag: str
    shown: str
    known: str


def _for_arch(wanted: _Wanted, arch: str) -> RawManifest:
    """Return the image manifest for an architecture.

    A copy of a single architecture lacks the index that the tag named. The image is then found by its own digest.
    """
    registry, repository, shown, known = wanted.registry, wanted.repository, wanted.shown, wanted.known
    try:
        raw = registry.manifest(repository, wanted.tag)
    except (NotFound, RegistryFailure) as error:
        if known not in ("", wanted.tag):
            with contextlib.suppress(NotFound, RegistryFailure):
                return registry.manifest(repository, known)
        if not isinstance(error, NotFound):
            raise
        fix = "check build.base in recipe.toml, or From: in the definition; a private image needs a login"
        raise NotFound(f"the base image {shown} does not exist", why=error.why or error.what, fix=fix) from error
    if raw.descriptor.media_type not in (INDEX, DOCKER_LIST):
        return raw
    for offered, entry in platforms(raw):
        if offered == arch:
            digest = str(Descriptor.from_json(entry).digest)
            if known not in ("", digest):
                why = f"for {arch} it is {digest}, but base.lock says {known}"
                raise IntegrityFailure(f"base.lock contradicts {shown}", why=why, fix="run singfactory update")
            return registry.manifest(repository, digest)
    offers = ", ".join(sorted({offered for offered, _ in platforms(raw)})) or "none for Linux"
    raise BuildFailed(f"the base image {shown} does not exist for {arch}", why=f"it is available for: {offers}")


def _manifest(raw: RawManifest, shown: str) -> tuple[tuple[Descriptor, ...], bytes]:
    """Return the blobs of an image and its manifest with OCI media types, converted from Docker's if necessary."""
    value = raw.json()
    layers = value.get("layers")
    if raw.descriptor.media_type not in (MANIFEST, DOCKER_MANIFEST) or not isinstance(layers, list):
        why = f"its media type is {ascii(raw.descriptor.media_type)[:80]}"
        raise IntegrityFailure(f"{shown} cannot be used as a base image", why=why)
    if len(layers) > _MOST_LAYERS:
        raise IntegrityFailure(f"{shown} cannot be used as a base image", why=f"it has {len(layers)} layers")
    read = [Descriptor.from_json(item) for item in (value.get("config"), *layers)]
    blobs = [Descriptor(_KINDS.get(blob.media_type, blob.media_type), blob.digest, blob.size) for blob in read]
    if foreign := {blob.media_type for blob in blobs} - _TAKEN:
        raise IntegrityFailure(f"{shown} cannot be used as a base image", why=f"it contains {ascii(foreign)[:120]}")
    document: Mapping[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blobs[0].to_json(),
        "layers": [blob.to_json() for blob in blobs[1:]],
    }
    unique = {blob.digest: blob for blob in blobs}
    return tuple(unique.values()), json.dumps(document, separators=(",", ":")).encode()


def _path(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.hex


def _are_whole(layout: Path, blobs: Sequence[Descriptor], shown: str, progress: Progress) -> bool:
    with step(progress, f"check {shown}", sum(blob.size for blob in blobs)) as advance:
        return all(_is_whole(layout, blob, advance) for blob in blobs)


def _is_whole(layout: Path, blob: Descriptor, advance: Advance = ignore) -> bool:
    """True if the blob is here with its size and digest. It is hashed each time: a build takes longer anyway."""
    path = _path(layout, blob.digest)
    if blob.digest.algorithm != "sha256" or not files.is_file_itself(path) or path.stat().st_size != blob.size:
        return False
    return plain.digest_of(path, advance)[0] == blob.digest


def _fetch_blob(
    blob: Descriptor, read: Callable[[Descriptor], Iterator[bytes]], layout: Path, kept: Path, advance: Advance
) -> None:
    """Copy a blob from another cached image, else fetch it, verified, from the registry."""
    path = _path(layout, blob.digest)
    files.make_folder(path.parent, exact=True)
    for older in kept.glob(f"[0-9a-f]*/blobs/{blob.digest.algorithm}/{blob.digest.hex}"):
        if _is_whole(older.parents[2], blob):
            plain.copy_file(older, path, exact=True, advance=advance)
            return
    with files.create(path, exact=True) as file:
        for block in read(blob):
            file.write(block)
            advance(len(block))


def _write_index(layout: Path, manifest: bytes) -> None:
    described = Descriptor.of(MANIFEST, manifest)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described.to_json()]}
    # Modes are exact in a layout: the build may run as another user. The folder of all layouts keeps others out.
    files.atomic_write(_path(layout, described.digest), manifest, exact=True)
    files.atomic_write(layout / "index.json", json.dumps(index), exact=True)
    files.atomic_write(layout / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}), exact=True)


def _forget_old(kept: Path) -> None:
    """Remove cached images that no build has used for 30 days."""
    for layout in kept.glob("[0-9a-f]*"):
        if time.time() - layout.stat().st_mtime > _KEPT_SECONDS:
            trees.remove_tree(layout)

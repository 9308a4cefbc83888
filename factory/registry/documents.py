"""Manifests and indexes as documents: what they are, what they name, and lists of referrers (OCI image-spec 1.1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import RegistryAddress
from factory.registry.protocol import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, RawManifest

MANIFEST_TYPES = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*", re.ASCII)
_MEDIA_TYPE_LIMIT = 255


def media_type(text: object) -> str:
    """A media type without its parameters; '' when it is none."""
    if not isinstance(text, str) or len(text) > _MEDIA_TYPE_LIMIT:
        return ""
    bare = text.partition(";")[0].strip()
    return bare if _MEDIA_TYPE.fullmatch(bare) else ""


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of bytes in memory by any algorithm that ``Digest.parse`` accepts."""
    return Digest(algorithm, hashlib.new(algorithm, content).hexdigest())


def read_manifest(content: bytes, said: str, algorithm: str = "sha256") -> RawManifest:
    """A manifest or index from bytes; said: the media type it came with, used only where the document has none.

    Raises IntegrityFailure when the bytes are no manifest at all.
    """
    value = RawManifest(Descriptor.of("", content), content).json()
    kind = media_type(value.get("mediaType")) or media_type(said)
    if not kind or kind in ("application/json", "application/octet-stream", "text/plain"):
        kind = INDEX if "manifests" in value else MANIFEST
    descriptor = Descriptor(kind, digest_of(content, algorithm), len(content), artifact_type=_artifact_type(value))
    return RawManifest(descriptor, content)


def named(raw: RawManifest) -> tuple[list[Descriptor], list[Descriptor]]:
    """The blobs and the manifests that must be there before this one is written. Raises IntegrityFailure."""
    value = raw.json()
    blobs = [value["config"]] if value.get("config") is not None else []
    layers, manifests = value.get("layers") or [], value.get("manifests") or []
    if not isinstance(layers, list) or not isinstance(manifests, list):
        raise IntegrityFailure("not a manifest", why="layers or manifests is not a list")
    return [Descriptor.from_json(item) for item in [*blobs, *layers]], [
        Descriptor.from_json(item) for item in manifests
    ]


def subject_of(value: Mapping[str, Any]) -> Digest | None:
    """The digest of what a manifest refers to; None when it refers to nothing that can be read."""
    subject = value.get("subject")
    try:
        return Digest.parse(subject["digest"]) if isinstance(subject, dict) else None
    except (IntegrityFailure, KeyError):
        return None


def as_referrer(raw: RawManifest) -> Descriptor:
    """The descriptor of a referrer as lists show it: with artifact type and annotations (distribution-spec)."""
    value = raw.json()
    given = value.get("annotations") or {}
    annotations = {key: text for key, text in given.items() if isinstance(text, str)} if isinstance(given, dict) else {}
    found = raw.descriptor
    return Descriptor(found.media_type, found.digest, found.size, annotations, _artifact_type(value))


def referrer_list(content: bytes) -> list[Descriptor]:
    """The descriptors in an index, each once; entries that are no descriptors are left out.

    Raises IntegrityFailure when it is no index.
    """
    value = RawManifest(Descriptor.of("", content), content).json()
    entries = value.get("manifests")
    if not isinstance(entries, list):
        raise IntegrityFailure("the registry sent a broken list of referrers", why="it has no manifests")
    found: dict[Digest, Descriptor] = {}
    for entry in entries:
        try:
            descriptor = Descriptor.from_json(entry)
        except IntegrityFailure:
            continue
        found.setdefault(descriptor.digest, descriptor)
    return list(found.values())


def referrer_index(descriptors: Iterable[Descriptor]) -> RawManifest:
    """An index with these entries."""
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json() for entry in descriptors]}
    content = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return RawManifest(Descriptor.of(INDEX, content), content)


def fallback_tag(subject: Digest) -> str:
    """The tag under which referrers are listed where the registry has no API for it (distribution-spec)."""
    return f"{subject.algorithm}-{subject.hex}"[:128]


def checked_repository(name: str) -> str:
    """Return a repository's name if it is one; names are parsed before they get here, this is the last door."""
    try:
        if name and RegistryAddress.parse(f"localhost/{name}").path == name and len(name) <= _MEDIA_TYPE_LIMIT:
            return name
    except UsageError:
        pass
    raise UsageError(f"not a repository: {name[:60]!a}", why="lower-case letters, digits and . _ - / are allowed")


def _artifact_type(value: Mapping[str, Any]) -> str:
    config = value.get("config")
    return media_type(value.get("artifactType")) or (
        media_type(config.get("mediaType")) if isinstance(config, dict) else ""
    )

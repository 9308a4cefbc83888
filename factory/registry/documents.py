"""Reading and writing manifests, indexes and lists of referrers (OCI image-spec 1.1)."""

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
    """Return a media type without its parameters, '' if it is not one."""
    if not isinstance(text, str) or len(text) > _MEDIA_TYPE_LIMIT:
        return ""
    bare = text.partition(";")[0].strip()
    return bare if _MEDIA_TYPE.fullmatch(bare) else ""


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    """Return the digest of bytes, by any algorithm that ``Digest.parse`` accepts."""
    return Digest(algorithm, hashlib.new(algorithm, content).hexdigest())


def read_manifest(content: bytes, stated: str, algorithm: str = "sha256") -> RawManifest:
    """Return a manifest or index from bytes. stated: its Content-Type, used only if the document has no media type.

    Raises IntegrityFailure if the bytes are not a JSON object.
    """
    value = RawManifest(Descriptor.of("", content), content).json()
    kind = media_type(value.get("mediaType")) or media_type(stated)
    if not kind or kind in ("application/json", "application/octet-stream", "text/plain"):
        kind = INDEX if "manifests" in value else MANIFEST
    descriptor = Descriptor(kind, digest_of(content, algorithm), len(content), artifact_type=_artifact_type(value))
    return RawManifest(descriptor, content)


def named(raw: RawManifest) -> tuple[list[Descriptor], list[Descriptor]]:
    """Return the blobs and manifests that a manifest names; they must be pushed first. Raises IntegrityFailure."""
    value = raw.json()
    blobs = [value["config"]] if value.get("config") is not None else []
    layers, manifests = value.get("layers") or [], value.get("manifests") or []
    if not isinstance(layers, list) or not isinstance(manifests, list):
        raise IntegrityFailure("not a manifest", why="layers or manifests is not a list")
    return [Descriptor.from_json(item) for item in [*blobs, *layers]], [
        Descriptor.from_json(item) for item in manifests
    ]


def subject_of(value: Mapping[str, Any]) -> Digest | None:
    """Return the digest of a manifest's subject, or None if it has no valid subject."""
    subject = value.get("subject")
    try:
        return Digest.parse(subject["digest"]) if isinstance(subject, dict) else None
    except (IntegrityFailure, KeyError):
        return None


def as_referrer(raw: RawManifest) -> Descriptor:
    """Return a referrer's descriptor as lists show it, with artifact type and annotations (distribution-spec)."""
    value = raw.json()
    given = value.get("annotations") or {}
    annotations = {key: text for key, text in given.items() if isinstance(text, str)} if isinstance(given, dict) else {}
    found = raw.descriptor
    return Descriptor(found.media_type, found.digest, found.size, annotations, _artifact_type(value))


def referrer_list(content: bytes) -> list[Descriptor]:
    """Return the descriptors in an index without duplicates. Malformed entries are skipped.

    Raises IntegrityFailure if it is not an index.
    """
    value = RawManifest(Descriptor.of("", content), content).json()
    entries = value.get("manifests")
    if not isinstance(entries, list):
        raise IntegrityFailure("the registry sent a malformed list of referrers", why="it has no manifests")
    found: dict[Digest, Descriptor] = {}
    for entry in entries:
        try:
            descriptor = Descriptor.from_json(entry)
        except IntegrityFailure:
            continue
        found.setdefault(descriptor.digest, descriptor)
    return list(found.values())


def referrer_index(descriptors: Iterable[Descriptor]) -> RawManifest:
    """Return an index with these entries."""
    value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry.to_json() for entry in descriptors]}
    content = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return RawManifest(Descriptor.of(INDEX, content), content)


def fallback_tag(subject: Digest) -> str:
    """Return the tag that lists a subject's referrers in registries without the referrers API (distribution-spec)."""
    return f"{subject.algorithm}-{subject.hex}"[:128]


def checked_repository(name: str) -> str:
    """Return the name if it is a valid repository name. Callers parse names earlier; this is a second check."""
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

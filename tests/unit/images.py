"""Images for anybody's `FROM`, in memory: as many registries see them, without a registry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from factory.errors import NotFound
from factory.oci.digest import Descriptor
from factory.registry.documents import read_manifest
from factory.registry.protocol import MANIFEST, RawManifest, Registry

CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"


class Images:
    """Answers for every repository alike. fetched: the digests of blobs that somebody read."""

    def __init__(self) -> None:
        self.documents: dict[str, RawManifest] = {}
        self.blobs: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def put_blob(self, kind: str, content: bytes) -> dict[str, Any]:
        blob = Descriptor.of(kind, content)
        self.blobs[str(blob.digest)] = content
        return blob.to_json()

    def put(self, tag: str, document: Mapping[str, Any]) -> Descriptor:
        raw = read_manifest(json.dumps(document).encode(), "")
        self.documents[tag] = self.documents[str(raw.descriptor.digest)] = raw
        return raw.descriptor

    def put_image(
        self, tag: str, *layers: bytes, kind: str = MANIFEST, config: str = CONFIG, layer: str = LAYER
    ) -> Descriptor:
        made = [self.put_blob(layer, content) for content in layers]
        document = {"schemaVersion": 2, "mediaType": kind, "config": self.put_blob(config, b"{}"), "layers": made}
        return self.put(tag, document)

    def head(self, _: str, tag: str) -> Descriptor | None:
        found = self.documents.get(tag)
        return found.descriptor if found is not None else None

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        found = self.documents.get(tag_or_digest)
        if found is None:
            raise NotFound(f"there is no {repository}:{tag_or_digest}")
        return found

    def blob(self, _: str, wanted: Descriptor) -> Iterator[bytes]:
        self.fetched.append(str(wanted.digest))
        yield self.blobs[str(wanted.digest)]

    def registry(self) -> Registry:
        return cast("Registry", self)

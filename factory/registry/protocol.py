"""The interface of all registries, and image manifests (OCI image-spec, manifest.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from factory import strict
from factory.errors import IntegrityFailure
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
EMPTY_JSON = b"{}"
MANIFEST_LIMIT = 4 * 1024 * 1024  # bytes; registries accept at least this, distribution-spec "Pushing Manifests"


@dataclass(frozen=True)
class RawManifest:
    """A manifest or index as bytes, verified against its descriptor."""

    descriptor: Descriptor
    content: bytes

    def json(self) -> dict[str, Any]:
        """Return the parsed document. Raises IntegrityFailure if it is not a JSON object."""
        try:
            return strict.json_object(self.content, MANIFEST_LIMIT)
        except strict.Malformed as error:
            raise IntegrityFailure("the registry sent a broken manifest", why=error.why) from error


@dataclass(frozen=True)
class Manifest:
    """An OCI image manifest. Referrers also have an artifact type and a subject."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @classmethod
    def read(cls, raw: RawManifest) -> Manifest:
        """Parse a manifest. Raises IntegrityFailure if it is not an OCI image manifest."""
        value = raw.json()
        layers, annotations = value.get("layers"), value.get("annotations") or {}
        if value.get("schemaVersion") != 2 or not isinstance(layers, list) or not isinstance(annotations, dict):  # noqa: PLR2004
            raise IntegrityFailure(
                "the registry sent a manifest of another kind",
                why=f"expected an OCI image manifest, got {str(value.get('mediaType'))[:80]!r}",
            )
        if not all(isinstance(text, str) for text in annotations.values()):
            raise IntegrityFailure("the registry sent a broken manifest", why="annotations are not strings")
        subject, artifact_type = value.get("subject"), value.get("artifactType")
        return cls(
            config=Descriptor.from_json(value.get("config")),
            layers=tuple(Descriptor.from_json(layer) for layer in layers),
            annotations=annotations,
            artifact_type=artifact_type if isinstance(artifact_type, str) else "",
            subject=Descriptor.from_json(subject) if subject is not None else None,
        )

    def raw(self) -> RawManifest:
        """Return the manifest as bytes with its descriptor; the same bytes for the same content."""
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        value["config"] = self.config.to_json()
        value["layers"] = [layer.to_json() for layer in self.layers]
        if self.subject is not None:
            value["subject"] = self.subject.to_json()
        if self.annotations:
            value["annotations"] = dict(sorted(self.annotations.items()))
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        descriptor = Descriptor(
            MANIFEST, Digest.of(content), len(content), artifact_type=self.artifact_type or self.config.media_type
        )
        return RawManifest(descriptor, content)


class Access(Enum):
    """What a registry is opened for. It decides what a read that is denied without a login means."""

    READ = "read"  # raise NotVisible: the image is private, or does not exist
    SURVEY = "survey"  # the repository counts as not published
    PUBLISH = "publish"  # raise AccessDenied: publishing needs a login


class ImageReader(Protocol):
    """What reading a base image needs of a registry: four methods of ``Registry``, with the same promises."""

    def tags(self, repository: str) -> Sequence[str]:
        """Return all tags, sorted; none if the repository does not exist."""

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None if it does not exist."""

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index by tag or digest. Raises NotFound."""

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        """Stream length bytes (None: the rest) of a blob from offset on; a whole blob is verified."""


class Registry(Protocol):
    """A registry. A repository is named after its recipe, without the namespace.

    Readers verify: the caller gets bytes of the requested digest and size. Every method raises RegistryFailure
    (retrying may help), AccessDenied, NotFound or IntegrityFailure.
    """

    @property
    def connections(self) -> int:
        """How many parts of a blob to read in parallel; 1 if that is no faster."""

    def describe(self) -> str:
        """Return the address, for messages and for `refs/`. It never holds a credential."""

    def tags(self, repository: str) -> Sequence[str]:
        """Return all tags, sorted; none if the repository does not exist."""

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None if it does not exist."""

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index by tag or digest. Raises NotFound."""

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        """Stream length bytes (None: the rest) of a blob from offset on, in blocks of at most 1 MiB.

        Yields exactly that many bytes or raises. The *digest* is checked if the whole blob is read; for a part, the
        caller must check it. A registry that cannot serve ranges raises OnlyWhole for a part.

        caller_verifies: skip the check of a whole blob, so that nothing is hashed twice. Only for downloads into the
        store, which hashes every blob before it is usable.
        """

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        """Return True if the registry holds the blob with that size."""

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        """Upload a file or bytes, streamed, unless the registry has the blob. The registry must confirm the digest."""

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        """Write a manifest by its digest, or under a tag. Push everything that it names first."""

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        """Write a manifest under a tag unless the tag names another one. Return True if it names this one afterwards.

        Atomic in a folder. The distribution specification has no conditional write: over HTTP the tag is checked
        before and after, which leaves a race of two requests. Workflows avoid it by publishing a recipe's releases
        one after another.
        """

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        """Return the manifests with this subject: from the API, else the ``sha256-<hex>`` tag (distribution-spec)."""

    def push_referrer(self, repository: str, manifest: Manifest) -> Descriptor:
        """Write a manifest that has a subject, and see that ``referrers`` lists it."""


def artifact(
    artifact_type: str, content: bytes, subject: Descriptor | None = None, annotations: Mapping[str, str] | None = None
) -> tuple[Manifest, Sequence[tuple[bytes, Descriptor]]]:
    """Return the manifest of an artifact with one small document (OCI artifact guidelines), and its two blobs."""
    layer, config = Descriptor.of(artifact_type, content), Descriptor.of(EMPTY_CONFIG, EMPTY_JSON)
    manifest = Manifest(config, (layer,), annotations or {}, artifact_type, subject)
    return manifest, ((EMPTY_JSON, config), (content, layer))


def read_all(blocks: Iterable[bytes], limit: int) -> bytes:
    """Join the blocks of a small blob. Raises IntegrityFailure if there are more than limit bytes."""
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > limit:
            raise IntegrityFailure("a document in the registry is too large", why=f"more than {limit} bytes")
    return bytes(content)

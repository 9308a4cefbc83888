"""One protocol for all registries, and the manifest that a release is (OCI image-spec, manifest.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
MANIFEST_LIMIT = 4 * 1024 * 1024  # bytes; what registries accept at least, distribution-spec "Pushing Manifests"


@dataclass(frozen=True)
class RawManifest:
    """A manifest or index as bytes, verified against its descriptor."""

    descriptor: Descriptor
    content: bytes

    def json(self) -> dict[str, Any]:
        """The parsed document. Raises IntegrityFailure when it is not a JSON object."""
        try:
            return strict.json_object(self.content, MANIFEST_LIMIT)
        except strict.Malformed as error:
            raise IntegrityFailure("the registry sent a broken manifest", why=error.why) from error


@dataclass(frozen=True)
class Manifest:
    """An OCI image manifest: config, layers, annotations; for referrers also artifact type and subject."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    subject: Descriptor | None = None

    @classmethod
    def read(cls, raw: RawManifest) -> Manifest:
        """Read a manifest. Raises IntegrityFailure when it is not an OCI image manifest."""
        value = raw.json()
        layers, annotations = value.get("layers"), value.get("annotations") or {}
        if value.get("schemaVersion") != 2 or not isinstance(layers, list) or not isinstance(annotations, dict):  # noqa: PLR2004
            raise IntegrityFailure(
                "the registry sent a manifest of another kind",
                why=f"wanted an OCI image manifest, got {str(value.get('mediaType'))[:80]!r}",
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
        """The manifest as bytes, the same for the same content, and their descriptor."""
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


class Registry(Protocol):
    """What the factory needs of a registry; a repository is named by its recipe, without the namespace.

    Every reader verifies: bytes that reach the caller have the digest and size that were asked for. Every
    method raises RegistryFailure (try again helps), AccessDenied, NotFound or IntegrityFailure.
    """

    @property
    def connections(self) -> int:
        """How many parts of one blob are best read at the same time; 1: parts bring nothing."""

    def describe(self) -> str:
        """The address, for people and for `refs/`; never holds a credential."""

    def tags(self, repository: str) -> Sequence[str]:
        """All tags, sorted; empty when the repository does not exist."""

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """What a tag or digest names now, without its content; None when there is no such tag."""

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """A manifest or index by tag or by digest. Raises NotFound."""

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        """The blob's bytes from offset on, streamed in blocks of at most 1 MiB; length: how many, None: the rest.

        Gives exactly that many bytes or raises, at the latest from the iterator. The *digest* is checked here
        when the whole blob is read, else it is the caller's part, who has the other bytes. For a part, a
        registry that cannot serve ranges raises OnlyWhole: fetch the whole.

        caller_verifies: not here either, then, so that nothing is hashed twice. Only for what goes into the store,
        which believes nobody: it hashes all bytes of a blob before it gives it a name.
        """

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        """True when the registry holds the blob with that size."""

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        """Upload a file or bytes unless it is there; streamed; finished only when the registry agrees on the digest."""

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        """Write a manifest by its digest, or under a tag. All that it names must be there."""

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        """Write a manifest under a tag unless the tag names another one; True when it names this one afterwards.

        Atomic in a folder. The distribution specification has no conditional write: over HTTP the tag is looked
        at before and after, which leaves a gap of two requests. Workflows close it by publishing a recipe's
        releases one after another.
        """

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        """Manifests whose subject this is: by the API, else by the ``sha256-<hex>`` tag (distribution-spec)."""

    def push_referrer(self, repository: str, manifest: Manifest) -> Descriptor:
        """Write a manifest that has a subject, and make it findable through ``referrers``."""


def artifact(
    artifact_type: str, content: bytes, subject: Descriptor | None = None, annotations: Mapping[str, str] | None = None
) -> tuple[Manifest, Sequence[tuple[bytes, Descriptor]]]:
    """A manifest around one small document, as the OCI guidelines for artifacts shape it, and its two blobs."""
    layer, config = Descriptor.of(artifact_type, content), Descriptor.of(EMPTY_CONFIG, EMPTY_JSON)
    manifest = Manifest(config, (layer,), annotations or {}, artifact_type, subject)
    return manifest, ((EMPTY_JSON, config), (content, layer))


def read_all(blocks: Iterable[bytes], limit: int) -> bytes:
    """Join a small blob's blocks. Raises IntegrityFailure above limit bytes."""
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > limit:
            raise IntegrityFailure("a document in the registry is too large", why=f"it has more than {limit} bytes")
    return bytes(content)

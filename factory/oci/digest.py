"""Digests and descriptors, as defined by the OCI image specification (descriptor.md). No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LONGEST_TYPE = 255  # characters of a media type (RFC 6838, section 4.2: 127 on each side of the slash)
_LONGEST = 200  # characters; limits what the regular expression is run on
_DIGEST = re.compile(r"([a-z0-9]+):([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, order=True)
class Digest:
    """A content digest such as ``sha256:9f86…``. Only sha256 and sha512 are accepted."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``algorithm:hex``. Raises IntegrityFailure for anything else, including unknown algorithms."""
        match = _DIGEST.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None or _HEX_LENGTH.get(match[1]) != len(match[2]):
            raise IntegrityFailure(
                f"not a digest: {str(text)[:80]!r}", why="a digest is sha256: followed by 64 lowercase hex digits"
            )
        return cls(match[1], match[2])

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Return the SHA-256 digest of bytes in memory."""
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, and `path` and `exec` hash nothing

        return cls("sha256", hashlib.sha256(content).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve hex digits, for display."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True)
class Descriptor:
    """A description of a blob or manifest: media type, digest, size in bytes (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """Return the descriptor of bytes in memory."""
        return cls(media_type, Digest.of(content), len(content))

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Parse a descriptor from a manifest. Raises IntegrityFailure if it is invalid."""
        if not isinstance(value, dict):
            raise IntegrityFailure("the registry sent a broken manifest", why="a descriptor is not an object")
        annotations, artifact_type = value.get("annotations") or {}, value.get("artifactType")
        try:
            size = strict.integer(value.get("size"))
            media_type = strict.text(value.get("mediaType"), _LONGEST_TYPE)
            artifact_type = strict.text(artifact_type if isinstance(artifact_type, str) else "", _LONGEST_TYPE)
        except strict.Malformed as error:
            raise IntegrityFailure(
                "the registry sent a broken manifest",
                why=f"a descriptor has size {_shown(value.get('size'))}, type {_shown(value.get('mediaType'))}",
            ) from error
        if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
            raise IntegrityFailure("the registry sent a broken manifest", why="annotations are not strings")
        return cls(media_type, Digest.parse(value.get("digest", "")), size, annotations, artifact_type)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the specification defines."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


def _shown(value: object) -> str:
    """Return an untrusted value for an error message, escaped and shortened."""
    return ascii(value)[:40]


class Verifier:
    """Checks a stream against a digest and an exact size, block by block.

    More than ``size`` bytes are an error as soon as they arrive, before anything is written to disk.
    """

    def __init__(self, wanted: Descriptor) -> None:
        self._wanted = wanted
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, and `path` and `exec` hash nothing

        self._hash = hashlib.new(wanted.digest.algorithm)
        self.seen = 0

    def update(self, block: bytes | memoryview) -> None:
        """Add the next block. Raises IntegrityFailure as soon as there are too many bytes."""
        self.seen += len(block)
        if self.seen > self._wanted.size:
            raise too_long(self._wanted)
        self._hash.update(block)

    def finish(self) -> None:
        """End the stream. Raises IntegrityFailure unless size and digest match."""
        if self.seen != self._wanted.size:
            raise IntegrityFailure(
                f"{self._wanted.digest} is incomplete", why=f"expected {self._wanted.size} bytes, got {self.seen}"
            )
        got = self._hash.hexdigest()
        if got != self._wanted.digest.hex:
            raise IntegrityFailure(
                "the content does not match its digest",
                why=f"expected {self._wanted.digest}, got {self._wanted.digest.algorithm}:{got}",
                fix="try again; if it repeats, the registry or a proxy in front of it is at fault",
            )


def too_long(wanted: Descriptor) -> IntegrityFailure:
    """Return the error for a stream that continues after its expected size."""
    return IntegrityFailure(
        f"{wanted.digest} is longer than it should be",
        why=f"expected {wanted.size} bytes, but more arrived",
        fix="try again; if it repeats, the registry or a proxy in front of it is at fault",
    )


def verified(blocks: Iterable[bytes], wanted: Descriptor) -> Iterator[bytes]:
    """Yield blocks unchanged while checking them. Raises IntegrityFailure, at the latest after the last block."""
    verifier = Verifier(wanted)
    for block in blocks:
        verifier.update(block)
        yield block
    verifier.finish()

"""Digests and descriptors, as the OCI image specification (descriptor.md) defines them. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_LONGEST_TYPE = 255  # characters of a media type (RFC 6838, section 4.2: 127 on either side of the /)
_LONGEST = 200  # characters; untrusted text is not matched at any length
_DIGEST = re.compile(r"([a-z0-9]+):([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, order=True)
class Digest:
    """A content digest such as ``sha256:9f86…``; only registered, strong algorithms are accepted."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``. Raises IntegrityFailure for anything else, unknown algorithms included."""
        match = _DIGEST.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None or _HEX_LENGTH.get(match[1]) != len(match[2]):
            raise IntegrityFailure(
                f"not a digest: {str(text)[:80]!r}", why="a digest is sha256: and 64 lower-case hexadecimal digits"
            )
        return cls(match[1], match[2])

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """The SHA-256 digest of bytes in memory."""
        return cls("sha256", hashlib.sha256(content).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True)
class Descriptor:
    """What a blob or manifest is: media type, digest, size in bytes (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """The descriptor of bytes in memory."""
        return cls(media_type, Digest.of(content), len(content))

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Read a descriptor out of a manifest. Raises IntegrityFailure when it is not one."""
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
        """The JSON object of the specification."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


def _shown(value: object) -> str:
    """Untrusted JSON for an error message: escaped, and short."""
    return ascii(value)[:40]


class Verifier:
    """Checks a stream against a digest and an exact size while it passes.

    At most ``size`` bytes are accepted: the byte after them is an error, not a surprise on disk.
    """

    def __init__(self, wanted: Descriptor) -> None:
        self._wanted = wanted
        self._hash = hashlib.new(wanted.digest.algorithm)
        self.seen = 0

    def update(self, block: bytes | memoryview) -> None:
        """Take the next block. Raises IntegrityFailure as soon as there are too many bytes."""
        self.seen += len(block)
        if self.seen > self._wanted.size:
            raise too_long(self._wanted)
        self._hash.update(block)

    def finish(self) -> None:
        """Say that the stream has ended. Raises IntegrityFailure unless size and digest are right."""
        if self.seen != self._wanted.size:
            raise IntegrityFailure(
                f"{self._wanted.digest} is incomplete", why=f"wanted {self._wanted.size} bytes, got {self.seen}"
            )
        got = self._hash.hexdigest()
        if got != self._wanted.digest.hex:
            raise IntegrityFailure(
                "the bytes are not what their digest says",
                why=f"wanted {self._wanted.digest}, got {self._wanted.digest.algorithm}:{got}",
                fix="try again; if it repeats, the registry or a proxy before it is at fault",
            )


def too_long(wanted: Descriptor) -> IntegrityFailure:
    """The error for a stream that goes on after its size."""
    return IntegrityFailure(
        f"{wanted.digest} is longer than it should be",
        why=f"wanted {wanted.size} bytes, and more arrived",
        fix="try again; if it repeats, the registry or a proxy before it is at fault",
    )


def verified(blocks: Iterable[bytes], wanted: Descriptor) -> Iterator[bytes]:
    """Pass blocks on while checking them; the last step raises IntegrityFailure unless all was right."""
    verifier = Verifier(wanted)
    for block in blocks:
        verifier.update(block)
        yield block
    verifier.finish()

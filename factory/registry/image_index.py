"""Image indexes: a document that names one image manifest for each platform (OCI image-spec, image-index.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor
from factory.registry.protocol import INDEX, MANIFEST, RawManifest

MOST_MEMBERS = 16  # images in one index; each costs a request
_OS = "linux"
ARCH = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)  # amd64, arm64, ppc64le


@dataclass(frozen=True)
class Member:
    """An image manifest in an index, and its architecture. The operating system is Linux."""

    manifest: Descriptor
    arch: str

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor with its platform, and without annotations."""
        bare = Descriptor(self.manifest.media_type, self.manifest.digest, self.manifest.size)
        return {**bare.to_json(), "platform": {"architecture": self.arch, "os": _OS}}


@dataclass(frozen=True)
class ImageIndex:
    """An index as singfactory writes it: only image manifests, each architecture once."""

    members: Sequence[Member]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: RawManifest) -> ImageIndex:
        """Read such an index, with at most ``MOST_MEMBERS`` members. Raises IntegrityFailure for any other."""
        value = raw.json()
        manifests, annotations = value.get("manifests"), value.get("annotations") or {}
        if not isinstance(manifests, list) or not 0 < len(manifests) <= MOST_MEMBERS:
            raise _foreign(f"it does not have 1 to {MOST_MEMBERS} images")
        if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
            raise _foreign("its annotations are not strings")
        members = tuple(_member(entry) for entry in manifests)
        if len({member.arch for member in members}) < len(members):
            raise _foreign("it lists an architecture twice")
        return cls(members, annotations)

    def raw(self) -> RawManifest:
        """Return the index as bytes with its descriptor; the same bytes for the same members in any order."""
        members = sorted(self.members, key=lambda member: member.arch)
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [member.to_json() for member in members],
        }
        if self.annotations:
            value["annotations"] = dict(sorted(self.annotations.items()))
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        return RawManifest(Descriptor.of(INDEX, content), content)


def platforms(raw: RawManifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield architecture and entry of each Linux image in any index, in its order."""
    manifests = raw.json().get("manifests")
    for entry in manifests if isinstance(manifests, list) else []:
        if arch := _arch(entry):
            yield arch, entry


def _member(entry: object) -> Member:
    manifest, arch = Descriptor.from_json(entry), _arch(entry)
    if manifest.media_type != MANIFEST or not arch:
        raise _foreign("one of its members is not a Linux image")
    return Member(manifest, arch)


def _arch(entry: object) -> str:
    """Return an entry's architecture, '' if it names none or another system than Linux."""
    platform = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(platform, dict) or platform.get("os", _OS) != _OS:
        return ""
    arch = platform.get("architecture")
    return arch if isinstance(arch, str) and ARCH.fullmatch(arch) else ""


def _foreign(why: str) -> IntegrityFailure:
    return IntegrityFailure("this index was not written by singfactory", why=why)

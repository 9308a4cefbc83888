"""Image indexes: one document that names the image manifest of each platform (OCI image-spec, image-index.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor
from factory.registry.protocol import INDEX, MANIFEST, RawManifest

MOST_MEMBERS = 16  # images of one index that we look at; each costs a request
_OS = "linux"
ARCH = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)  # of an architecture's name: amd64, arm64, ppc64le


@dataclass(frozen=True)
class Member:
    """An image manifest of an index, and the architecture that it is for; its system is Linux."""

    manifest: Descriptor
    arch: str

    def to_json(self) -> dict[str, Any]:
        """The descriptor with its platform; what else the registry knows of the manifest stays out."""
        bare = Descriptor(self.manifest.media_type, self.manifest.digest, self.manifest.size)
        return {**bare.to_json(), "platform": {"architecture": self.arch, "os": _OS}}


@dataclass(frozen=True)
class ImageIndex:
    """An index as we write it: image manifests only, each architecture once."""

    members: Sequence[Member]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: RawManifest) -> ImageIndex:
        """Read an index of this shape, with at most ``MOST_MEMBERS`` members. Raises IntegrityFailure for another."""
        value = raw.json()
        manifests, annotations = value.get("manifests"), value.get("annotations") or {}
        if not isinstance(manifests, list) or not 0 < len(manifests) <= MOST_MEMBERS:
            raise _foreign("it has no images, or too many")
        if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
            raise _foreign("its annotations are not strings")
        members = tuple(_member(entry) for entry in manifests)
        if len({member.arch for member in members}) < len(members):
            raise _foreign("it has an architecture twice")
        return cls(members, annotations)

    def raw(self) -> RawManifest:
        """The index as bytes, the same for the same members in any order, and their descriptor."""
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
    """Architecture and entry of everything for Linux in anybody's index, in its order; what names none is left out."""
    manifests = raw.json().get("manifests")
    for entry in manifests if isinstance(manifests, list) else []:
        if arch := _arch(entry):
            yield arch, entry


def _member(entry: object) -> Member:
    manifest, arch = Descriptor.from_json(entry), _arch(entry)
    if manifest.media_type != MANIFEST or not arch:
        raise _foreign("one of its members is no image for Linux")
    return Member(manifest, arch)


def _arch(entry: object) -> str:
    """The architecture that an entry is for; '' when it names none, or another system than Linux."""
    platform = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(platform, dict) or platform.get("os", _OS) != _OS:
        return ""
    arch = platform.get("architecture")
    return arch if isinstance(arch, str) and ARCH.fullmatch(arch) else ""


def _foreign(why: str) -> IntegrityFailure:
    return IntegrityFailure("this is not an index of ours", why=why)

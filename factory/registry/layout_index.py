"""The ``index.json`` of an OCI image layout (image-spec, image-layout.md). No I/O.

Entries keep their unknown fields, which other tools may have written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import tag_name
from factory.registry.protocol import INDEX

INDEX_LIMIT = 16 * 1024 * 1024  # bytes; some 50,000 manifests
_MOST = 200_000  # entries
REF_NAME = "org.opencontainers.image.ref.name"
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class LayoutIndex:
    """The manifests of a layout. top: the document without its entries."""

    entries: Sequence[Entry] = ()
    top: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, content: bytes, place: str) -> LayoutIndex:
        """Parse index.json. Raises IntegrityFailure, which names place."""
        try:
            value = strict.json_object(content, INDEX_LIMIT)
            entries = strict.array(value.pop("manifests", None), _MOST)
        except strict.Malformed as error:
            raise _broken(place, error.why) from error
        if not all(isinstance(entry, dict) for entry in entries):
            raise _broken(place, "it is not an OCI image index")
        return cls(tuple(entries), value)

    def content(self) -> bytes:
        """Return the document as bytes."""
        top = self.top or {"schemaVersion": 2, "mediaType": INDEX}
        return json.dumps({**top, "manifests": list(self.entries)}, indent=1, ensure_ascii=False).encode() + b"\n"

    def tags(self) -> dict[str, Entry]:
        """Return entries by tag. Names that are not tags are skipped: other tools write whole references."""
        return {tag: entry for entry in self.entries if (tag := _tag_of(entry)) and _is_tag(tag)}

    def find(self, digest: Digest) -> Entry | None:
        """Return an entry with this digest, or None."""
        return next((entry for entry in self.entries if entry.get("digest") == str(digest)), None)

    def descriptors(self) -> list[Descriptor]:
        """Return the entries as descriptors, each digest once. Malformed entries are skipped."""
        found: dict[str, Descriptor] = {}
        for entry in self.entries:
            digest = entry.get("digest")
            if isinstance(digest, str) and digest not in found:
                try:
                    found[digest] = Descriptor.from_json(entry)
                except IntegrityFailure:
                    continue
        return list(found.values())

    def with_manifest(self, descriptor: Descriptor, tag: str = "") -> LayoutIndex:
        """Return an index that lists this manifest, under the tag if given. The tag's old manifest stays listed."""
        digest = str(descriptor.digest)
        kept: list[Entry] = []
        for entry in self.entries:
            ours, named = entry.get("digest") == digest, _tag_of(entry)
            if ours and (named == tag or not tag):
                return self
            if tag and named == tag:
                if not self._listed_twice(entry):
                    kept.append(_without_tag(entry))
            elif not (ours and not named):
                kept.append(entry)
        annotations = {**descriptor.annotations, **({REF_NAME: tag} if tag else {})}
        new = Descriptor(
            descriptor.media_type, descriptor.digest, descriptor.size, annotations, descriptor.artifact_type
        )
        return LayoutIndex((*kept, new.to_json()), self.top)

    def _listed_twice(self, entry: Entry) -> bool:
        return len([other for other in self.entries if other.get("digest") == entry.get("digest")]) > 1


def _tag_of(entry: Entry) -> str:
    annotations = entry.get("annotations")
    tag = annotations.get(REF_NAME, "") if isinstance(annotations, dict) else ""
    return tag if isinstance(tag, str) else ""


def _without_tag(entry: Entry) -> Entry:
    annotations = {key: text for key, text in entry["annotations"].items() if key != REF_NAME}
    bare = {key: value for key, value in entry.items() if key != "annotations"}
    return {**bare, "annotations": annotations} if annotations else bare


def _is_tag(text: str) -> bool:
    try:
        return bool(tag_name(text))
    except UsageError:
        return False


def _broken(place: str, why: str) -> IntegrityFailure:
    return IntegrityFailure(f"{place} is broken", why=why, fix="restore it from a copy")

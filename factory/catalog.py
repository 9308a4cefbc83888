"""The catalog: one document in the registry that tells every recipe's releases and status in one request."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from factory.digest import Descriptor, Digest
from factory.errors import IntegrityFailure, NotFound
from factory.io.progress import Progress
from factory.names import LATEST
from factory.recipes.model import Recipe
from factory.registry.protocol import Manifest, RawManifest, Registry, artifact, read_all
from factory.release import Release

MEDIA_TYPE = "application/vnd.singfactory.catalog.v1+json"
REPOSITORY = "catalog"
_FORMAT = 1
_LIMIT = 64 * 1024 * 1024  # bytes; some 100,000 releases
_INLINE_LIMIT = 1024 * 1024  # bytes; above it the document is fetched as a blob, with a second request


@dataclass(frozen=True)
class Entry:
    """One recipe: what it is, its releases (oldest first) and where its moving tags point (tag to build tag)."""

    name: str
    version: str = ""
    summary: str = ""
    license: str = ""
    homepage: str = ""
    status: str = "active"
    note: str = ""
    releases: tuple[Release, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def release(self, tag: str, arch: str) -> Release | None:
        """The release that a tag, moving or not, names for an architecture; None when the catalog has none."""
        wanted = self.tags.get(tag, tag)
        return next((one for one in self.releases if (str(one.tag), one.arch) == (wanted, arch)), None)

    def newest(self, arch: str) -> Release | None:
        """The release of an architecture that was published last."""
        return next((release for release in reversed(self.releases) if release.arch == arch), None)

    def with_release(self, release: Release) -> Entry:
        """The entry with a release added once; its version comes last, in the order of build numbers.

        Under one build number there is one for each architecture. What is added late, after a run that died, may be
        older than what is known.
        """
        same = (one for one in self.releases if (one.arch, one.digest) == (release.arch, release.digest))
        repeats = [one.repeat for one in (*same, release) if one.repeat is not None]  # which no registry tells
        release = replace(release, repeat=max(repeats, key=lambda one: one.created, default=None))
        if release in self.releases:
            return self
        others = [known for known in self.releases if (known.tag, known.arch) != (release.tag, release.arch)]
        own = [release, *(known for known in others if known.tag.version == release.tag.version)]
        before = (known for known in others if known.tag.version != release.tag.version)
        return replace(self, releases=(*before, *sorted(own, key=lambda one: (one.tag, one.arch))))

    def described_by(self, recipe: Recipe) -> Entry:
        """The entry with what the recipe says today: text, status, note."""
        return replace(
            self,
            version=recipe.version,
            summary=recipe.summary,
            license=recipe.license,
            homepage=recipe.homepage,
            status=recipe.lifecycle.status,
            note=recipe.lifecycle.note,
        )


@dataclass(frozen=True)
class Catalog:
    """All entries by name."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """The entry of a recipe; an empty one when it was never published."""
        return self.entries.get(name) or Entry(name)

    def with_entry(self, entry: Entry) -> Catalog:
        """The catalog with one entry replaced."""
        return Catalog({**self.entries, entry.name: entry})

    def content(self) -> bytes:
        """The document, the same for the same catalog."""
        recipes = {name: _entry_to_json(entry) for name, entry in sorted(self.entries.items())}
        return json.dumps({"format": _FORMAT, "recipes": recipes}, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, content: bytes) -> Catalog:
        """Read the document. Raises IntegrityFailure."""
        try:
            value = json.loads(content)
            recipes = value["recipes"].items() if value["format"] == _FORMAT else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityFailure("the catalog is broken", why=repr(error)[:120]) from error
        if recipes is None:
            raise IntegrityFailure(
                f"the catalog has format {value['format']!r}", fix="update singfactory on this machine"
            )
        return cls({name: _entry_from_json(name, entry) for name, entry in recipes})


def read(registry: Registry) -> Catalog:
    """The registry's catalog, in one request; empty when there is none yet."""
    return read_with_digest(registry)[0]


def read_with_digest(registry: Registry) -> tuple[Catalog, Digest | None]:
    """The catalog and the digest of its manifest."""
    try:
        raw = registry.manifest(REPOSITORY, LATEST)
    except NotFound:
        return Catalog(), None
    manifest = Manifest.read(raw)
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != MEDIA_TYPE:
        raise IntegrityFailure(
            f"{registry.describe()}/{REPOSITORY} is not a catalog of ours", fix="use another namespace"
        )
    layer = manifest.layers[0]
    content = _inline(raw, layer)
    if content is None:
        if layer.size > _LIMIT:
            raise IntegrityFailure("the catalog is too large", why=f"{layer.size} bytes")
        content = read_all(registry.blob(REPOSITORY, layer), _LIMIT)
    return Catalog.parse(content), raw.descriptor.digest


def write(registry: Registry, catalog: Catalog, progress: Progress) -> None:
    """Publish the catalog; the document travels inside its manifest as well (descriptor.md, `data`)."""
    content = catalog.content()
    manifest, blobs = artifact(MEDIA_TYPE, content)
    for blob, descriptor in blobs:
        registry.push_blob(REPOSITORY, blob, descriptor, progress)
    raw = manifest.raw()
    registry.push_manifest(REPOSITORY, _with_data(raw, content) if len(content) <= _INLINE_LIMIT else raw, LATEST)


def _with_data(raw: RawManifest, content: bytes) -> RawManifest:
    value = raw.json()
    value["layers"][0]["data"] = base64.b64encode(content).decode()
    inlined = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return RawManifest(replace(raw.descriptor, digest=Digest.of(inlined), size=len(inlined)), inlined)


def _inline(raw: RawManifest, layer: Descriptor) -> bytes | None:
    """The document out of the manifest; None when it is not in it. Raises IntegrityFailure when it is wrong."""
    data = raw.json()["layers"][0].get("data")
    if not isinstance(data, str):
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != layer.size or Digest.of(content) != layer.digest:
        raise IntegrityFailure("the catalog is broken", why="its inline copy is not what its digest says")
    return content


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {
        "version": entry.version,
        "summary": entry.summary,
        "license": entry.license,
        "homepage": entry.homepage,
        "status": entry.status,
        "note": entry.note,
        "tags": dict(sorted(entry.tags.items())),
        "releases": [release.to_json() for release in entry.releases],
    }


def _entry_from_json(name: str, value: dict[str, Any]) -> Entry:
    try:
        return Entry(
            name=name,
            version=str(value["version"]),
            summary=str(value["summary"]),
            license=str(value["license"]),
            homepage=str(value["homepage"]),
            status=str(value["status"]),
            note=str(value["note"]),
            releases=tuple(Release.from_json(name, release) for release in value["releases"]),
            tags={str(tag): str(target) for tag, target in value["tags"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityFailure(f"the catalog's entry for {name} is broken", why=repr(error)[:120]) from error

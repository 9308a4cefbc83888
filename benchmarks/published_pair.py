"""Two releases of one recipe in a registry, with their chunk indexes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.delta_bytes import index_of
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import BuildTag, RegistryAddress
from factory.records import catalog as catalogs
from factory.records.catalog import Entry
from factory.records.release import CHUNK_INDEX, Release, to_manifest
from factory.registry.open import open_registry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Registry

_VERSION = "1.0"
SPACE = "pairs"
BEFORE, AFTER = f"{_VERSION}-1", f"{_VERSION}-2"


@dataclass(frozen=True)
class Pair:
    """A published pair. recipe: its name there; files: on this machine; index: bytes of the second's chunk index."""

    recipe: str
    title: str
    before: Path
    after: Path
    sif: Descriptor
    index: int

    @property
    def blob(self) -> str:
        """Return the path of the second image's blob on the registry."""
        return blob_path(self.recipe, self.sif)


def blob_path(recipe: str, blob: Descriptor) -> str:
    """Return the path of a blob on the registry."""
    return f"/v2/{SPACE}/{recipe}/blobs/{blob.digest}"


def space(host: str) -> str:
    """Return the namespace of all pairs, for --registry."""
    return f"http://{host}/{SPACE}"


def registry_at(host: str) -> Registry:
    """Open the registry of all pairs."""
    return open_registry(RegistryAddress.parse(space(host)))


def publish_pair(host: str, recipe: str, title: str, before: Path, after: Path) -> Pair:
    """Publish both images directly: `singfactory publish` accepts only images that it built and tested."""
    registry = registry_at(host)
    entry = Entry(recipe, version=_VERSION)
    for number, path in enumerate((before, after), 1):
        release = _push(registry, recipe, BuildTag(_VERSION, number), path)
        entry = entry.with_release(release)
    entry = replace(entry, tags={"latest": AFTER, _VERSION: AFTER})
    catalogs.write(registry, catalogs.read(registry).with_entry(entry), Silent())
    return Pair(recipe, title, before, after, release.sif, len(index_of(after).encode()))


def _push(registry: Registry, recipe: str, tag: BuildTag, path: Path) -> Release:
    index, quietly = index_of(path), Silent()
    content = index.encode()
    sif, chunks = Descriptor(SIF_LAYER, index.digest, index.size), Descriptor.of(CHUNK_INDEX, content)
    registry.push_blob(recipe, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), quietly)
    registry.push_blob(recipe, path, sif, quietly)
    registry.push_blob(recipe, content, chunks, quietly)
    made = Release(recipe, tag, index.digest, sif, "amd64", "2026-01-01T00:00:00Z", chunks=chunks)
    raw = to_manifest(made, {}).raw()
    registry.push_manifest(recipe, raw, str(tag))
    return replace(made, digest=raw.descriptor.digest)

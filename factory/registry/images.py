"""What a registry says about a Docker image without fetching its layers: architectures and configuration."""

from __future__ import annotations

from typing import Any

from factory import strict
from factory.oci.digest import Descriptor
from factory.registry.image_index import ARCH, platforms
from factory.registry.protocol import DOCKER_LIST, INDEX, ImageReader, RawManifest, read_all

_CONFIG_LIMIT = 8 * 1024 * 1024  # bytes of an image's configuration; a history of hundreds of layers has less


def platforms_of(raw: RawManifest, repository: str, registry: ImageReader) -> dict[str, str]:
    """Return the digest of the image manifest for each architecture. raw: an index, or an image manifest."""
    if raw.descriptor.media_type in (INDEX, DOCKER_LIST):
        found: dict[str, str] = {}
        for arch, entry in platforms(raw):
            found.setdefault(arch, str(Descriptor.from_json(entry).digest))
        return found
    said = config_of(raw, repository, registry).get("architecture")
    return {said: str(raw.descriptor.digest)} if isinstance(said, str) and ARCH.fullmatch(said) else {}


def config_of(raw: RawManifest, repository: str, registry: ImageReader) -> dict[str, Any]:
    """Return an image's configuration (OCI image-spec, config.md). Raises IntegrityFailure, NotFound."""
    config = Descriptor.from_json(raw.json().get("config"))
    content = read_all(registry.blob(repository, config), min(config.size, _CONFIG_LIMIT))
    return dict(strict.json_object(content, _CONFIG_LIMIT))

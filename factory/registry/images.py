"""What a registry says about a Docker image without fetching its layers: architectures and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from factory import strict
from factory.errors import NotFound, UsageError
from factory.oci.digest import Descriptor
from factory.oci.names import docker_reference
from factory.registry.image_index import ARCH, platforms
from factory.registry.protocol import DOCKER_LIST, INDEX, ImageReader, RawManifest, read_all

_MOST_TAGS = 5000  # compared with a misspelled one
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


@dataclass(frozen=True)
class Looked:
    """What a registry says about an image. digest: of what its name stands for. config: of the first of our platforms.

    platforms: the digest of the image manifest by architecture.
    """

    digest: str
    platforms: Mapping[str, str]
    config: Mapping[str, Any]


def look(registry: ImageReader, name: str, wanted: Sequence[str]) -> Looked:
    """Look at an image without fetching its layers. name: as for docker pull. wanted: architectures, the best first.

    Raises NotFound with similar tags, UsageError if no wanted architecture is there, NotVisible, RegistryFailure.
    """
    host, repository, tag = docker_reference(name)
    try:
        raw = registry.manifest(repository, tag)
    except NotFound as error:
        raise _missing(registry, host, repository, tag) from error
    found = platforms_of(raw, repository, registry)
    arch = next((one for one in wanted if one in found), "")
    if not arch:
        offers = ", ".join(sorted(found)) or "no Linux platform"
        raise UsageError(
            f"the image {name} does not exist for {' or '.join(wanted)}",
            why=f"it is available for: {offers}",
            fix="choose another image or tag",
        )
    digest = str(raw.descriptor.digest)
    image = raw if found[arch] == digest else registry.manifest(repository, found[arch])
    return Looked(digest, found, config_of(image, repository, registry))


def _missing(registry: ImageReader, host: str, repository: str, tag: str) -> NotFound:
    tags = registry.tags(repository) if ":" not in tag else ()
    near = get_close_matches(tag, tags[:_MOST_TAGS], n=3, cutoff=0.5)
    if near:
        fix = f"did you mean {' or '.join(f'{repository}:{one}' for one in near)}?"
    else:
        fix = f"choose one of its {len(tags)} tags" if tags else "check the name"
    return NotFound(f"the image {repository}:{tag} does not exist", why=f"{host} has no such image", fix=fix)

"""What the store remembers of an image: where it came from, and how it wants to be run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.digest import Descriptor, Digest
from factory.errors import FactoryError, NotFound
from factory.io import files
from factory.names import Reference

_FORMAT = 1


@dataclass(frozen=True)
class StoredImage:
    """A verified image in a store. digest is the manifest's, sif_digest the file's; times are ISO 8601, UTC."""

    recipe: str
    tag: str
    registry: str
    digest: Digest
    sif_digest: Digest
    size: int
    pulled: str
    gpu: str = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] = ()

    @property
    def sif(self) -> Descriptor:
        """The image's file; a store does not remember its media type."""
        return Descriptor("", self.sif_digest, self.size)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in `refs/`."""
        return {
            "recipe": self.recipe,
            "tag": self.tag,
            "registry": self.registry,
            "digest": str(self.digest),
            "sif_digest": str(self.sif_digest),
            "size": self.size,
            "pulled": self.pulled,
            "run": {"gpu": self.gpu, "env": dict(self.env), "binds": list(self.binds)},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StoredImage:
        """Read back. Raises KeyError, TypeError, ValueError or IntegrityFailure for anything else."""
        run = value["run"]
        return cls(
            recipe=str(value["recipe"]),
            tag=str(value["tag"]),
            registry=str(value["registry"]),
            digest=Digest.parse(value["digest"]),
            sif_digest=Digest.parse(value["sif_digest"]),
            size=int(value["size"]),
            pulled=str(value["pulled"]),
            gpu=str(run["gpu"]),
            env={str(key): str(text) for key, text in run["env"].items()},
            binds=tuple(str(bind) for bind in run["binds"]),
        )


class Purged(NotFound):
    """The store knows the image, and its file is gone or cut short: scratch file systems delete what lies unused."""

    def __init__(self, reference: Reference, image: StoredImage, path: Path) -> None:
        same = Reference(image.recipe, digest=image.digest, registry=reference.registry)
        adopt = f"singfactory store adopt FILE --as {image.recipe}:{image.tag}"
        again = f"singfactory pull {same}" if image.registry else adopt
        super().__init__(
            f"the file of {image.recipe}:{image.tag} is gone from the store",
            why=f"{path} was deleted or cut short; many scratch file systems delete what lies unused",
            fix=f"{again} brings the same image back",
        )
        self.image = image


def refs_file(root: Path, recipe: str) -> Path:
    """Where a store remembers the images of a recipe."""
    return root / "refs" / f"{recipe}.json"


def read_refs(root: Path, recipe: str) -> dict[str, StoredImage]:
    """The images of a recipe by tag; empty when nothing was pulled.

    An unreadable file counts as empty: it is a record of what can be resolved again, never the image.
    """
    try:
        value = json.loads(refs_file(root, recipe).read_bytes())
        return {str(tag): StoredImage.from_json(image) for tag, image in value["tags"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FactoryError):
        return {}


def write_refs(root: Path, recipe: str, known: Mapping[str, StoredImage]) -> None:
    """Replace the record of a recipe in one step."""
    value = {"format": _FORMAT, "tags": {tag: image.to_json() for tag, image in sorted(known.items())}}
    files.atomic_write(refs_file(root, recipe), json.dumps(value, indent=1) + "\n")

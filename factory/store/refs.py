"""What the store remembers of an image: where it came from, and how it wants to be run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.digest import Descriptor, Digest
from factory.errors import FactoryError, NotFound
from factory.io import private
from factory.io.below import Folder
from factory.names import Reference, RegistryAddress, recipe_name, tag_name

_FORMAT = 1
_LIMIT = 16 * 1024 * 1024  # bytes of a record; a tag takes some 500
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


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
        """Read back. Raises KeyError, TypeError, ValueError, OverflowError or FactoryError for anything else."""
        run, registry = value["run"], str(value["registry"])
        image = cls(
            recipe=recipe_name(value["recipe"]),
            tag=tag_name(value["tag"]),
            registry=str(RegistryAddress.parse(registry)) if registry else "",
            digest=Digest.parse(value["digest"]),
            sif_digest=Digest.parse(value["sif_digest"]),
            size=int(value["size"]),
            pulled=str(value["pulled"]),
            gpu=str(run["gpu"]),
            env={str(key): str(text) for key, text in run["env"].items()},
            binds=tuple(str(bind) for bind in run["binds"]),
        )
        named = all(_VARIABLE.fullmatch(name) for name in image.env)
        texts = (image.pulled, image.gpu, image.registry, *image.env.values(), *image.binds)
        if not named or not all(text.isprintable() for text in texts):
            raise ValueError("a text that cannot be right")
        return image


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
        content, _ = private.read_small(refs_file(root, recipe), _LIMIT)
        images = {tag_name(tag): StoredImage.from_json(image) for tag, image in json.loads(content)["tags"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, FactoryError):
        return {}
    return {tag: image for tag, image in images.items() if image.recipe == recipe}


def write_refs(refs: Folder, recipe: str, known: Mapping[str, StoredImage]) -> None:
    """Replace the record of a recipe in one step; refs: the folder of records."""
    value = {"format": _FORMAT, "tags": {tag: image.to_json() for tag, image in sorted(known.items())}}
    refs.write(f"{recipe}.json", json.dumps(value, indent=1) + "\n")

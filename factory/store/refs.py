"""What the store remembers of an image: where it came from, and how it wants to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import NotFound
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference, RegistryAddress, recipe_name, tag_name

GPUS = ("none", "nvidia", "rocm")
_TIME_LIMIT = 40  # characters of a moment


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

    def says_the_same(self, known: StoredImage | None) -> bool:
        """Whether what is known says this already, whenever it was pulled."""
        return known is not None and replace(known, pulled=self.pulled) == self

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
    def from_json(cls, value: object) -> StoredImage:
        """Read back, as strictly as what a registry says is read (factory.records.release). Raises Malformed."""
        image = strict.mapping(value)
        run = strict.mapping(strict.member(image, "run"))
        env = strict.texts(strict.member(run, "env"), most=strict.MOST_VARIABLES)
        if not all(strict.is_variable(name, text) for name, text in env.items()):
            raise strict.Malformed("a variable has a name that no shell would take")
        binds = strict.array(strict.member(run, "binds"), strict.MOST_VARIABLES)
        gpu = strict.text(strict.member(run, "gpu"))
        if gpu not in GPUS:
            raise strict.Malformed(f"no kind of GPU: {ascii(gpu)[:40]}")
        return cls(
            recipe=strict.parsed(recipe_name, strict.member(image, "recipe")),
            tag=strict.parsed(tag_name, strict.member(image, "tag")),
            registry=strict.parsed(_address, strict.member(image, "registry")),
            digest=strict.parsed(Digest.parse, strict.member(image, "digest")),
            sif_digest=strict.parsed(Digest.parse, strict.member(image, "sif_digest")),
            size=strict.integer(strict.member(image, "size")),
            pulled=strict.text(strict.member(image, "pulled"), _TIME_LIMIT),
            gpu=gpu,
            env=env,
            binds=tuple(strict.text(bind) for bind in binds),
        )


def _address(text: str) -> str:
    return str(RegistryAddress.parse(text)) if text else ""


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

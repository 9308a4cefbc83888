"""The record of a stored image: where it came from, and its run options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import NotFound
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference, RegistryAddress, is_program, recipe_name, tag_name
from factory.sif.needs import Needs

GPUS = ("none", "nvidia", "rocm")
_TIME_LIMIT = 40  # characters of a timestamp


@dataclass(frozen=True)
class StoredImage:
    """A verified image in a store. digest: of the manifest; sif_digest: of the file; times: ISO 8601, UTC.

    needs: of the machine's GPU driver; empty if the release does not say.
    """

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
    programs: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)

    @property
    def sif(self) -> Descriptor:
        """The descriptor of the image's file; the store does not record the media type."""
        return Descriptor("", self.sif_digest, self.size)

    @property
    def pinned(self) -> Reference:
        """The reference that means this image on every machine that can reach its registry, whatever tags move to."""
        registry = RegistryAddress.parse(self.registry) if self.registry else None
        return Reference(self.recipe, digest=self.digest, registry=registry)

    def says_the_same(self, known: StoredImage | None) -> bool:
        """Return whether the known record is the same, except for the time of the pull."""
        return known is not None and replace(known, pulled=self.pulled) == self

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form for `refs/`."""
        return {
            "recipe": self.recipe,
            "tag": self.tag,
            "registry": self.registry,
            "digest": str(self.digest),
            "sif_digest": str(self.sif_digest),
            "size": self.size,
            "pulled": self.pulled,
            "run": {
                "gpu": self.gpu,
                "env": dict(self.env),
                "binds": list(self.binds),
                **({"programs": list(self.programs)} if self.programs else {}),
            },
            **({"needs": needs} if (needs := self.needs.to_json()) else {}),
        }

    @classmethod
    def from_json(cls, value: object) -> StoredImage:
        """Parse the JSON form, as strictly as a registry's manifest (factory.records.release). Raises Malformed."""
        image = strict.mapping(value)
        run = strict.mapping(strict.member(image, "run"))
        env = strict.texts(strict.member(run, "env"), most=strict.MOST_VARIABLES)
        if not all(strict.is_variable(name, text) for name, text in env.items()):
            raise strict.Malformed("a variable's name is not valid in a shell")
        binds = strict.array(strict.member(run, "binds"), strict.MOST_VARIABLES)
        programs = strict.array(run.get("programs", []), strict.MOST_VARIABLES)
        if not all(map(is_program, programs)):
            raise strict.Malformed("a program's name is not valid")
        gpu = strict.text(strict.member(run, "gpu"))
        if gpu not in GPUS:
            raise strict.Malformed(f"unknown GPU option: {ascii(gpu)[:40]}")
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
            programs=tuple(programs),
            needs=Needs.from_json(image.get("needs")),
        )


def _address(text: str) -> str:
    return str(RegistryAddress.parse(text)) if text else ""


class Purged(NotFound):
    """The store has a record of the image, but its file is missing or truncated, for example purged from scratch."""

    def __init__(self, reference: Reference, image: StoredImage, path: Path) -> None:
        same = Reference(image.recipe, digest=image.digest, registry=reference.registry)
        adopt = f"singfactory store adopt FILE --as {image.recipe}:{image.tag}"
        again = f"singfactory pull {same}" if image.registry else adopt
        super().__init__(
            f"the file of {image.recipe}:{image.tag} is gone from the store",
            why=f"{path} was deleted or truncated; many scratch file systems delete files that are not used",
            fix=f"get the same image back with: {again}",
        )
        self.image = image

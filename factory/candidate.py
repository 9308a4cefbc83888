"""A candidate: an image that was built and not yet published, in a folder of its own.

<candidates>/<recipe>-<arch>/image.sif       the image
                             candidate.json  what it was made of, by what, its digest and size
                             build.log       everything the build printed
                             image.chunks    its chunk index, for those who have an older one
                             sbom.spdx.json  the packages in it
                             report.json     what the tests said, and junit.xml the same for CI
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.digest import Descriptor, Digest
from factory.errors import FactoryError, IntegrityFailure, NotFound
from factory.io import files
from factory.registry.protocol import SIF_LAYER

_FORMAT = 1


@dataclass(frozen=True)
class Candidate:
    """What one build made. created is ISO 8601, UTC; seconds the wall time of the build; key the input key.

    fingerprint: of its contents (factory.sif.fingerprint), '' when they could not be read.
    """

    folder: Path
    recipe: str
    version: str
    arch: str
    sif: Descriptor
    created: str
    seconds: float
    engine: str
    parts: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    base: str = ""
    base_digest: str = ""
    fingerprint: str = ""

    @property
    def image(self) -> Path:
        """The SIF."""
        return self.folder / "image.sif"

    @property
    def chunks(self) -> Path:
        """Its chunk index; absent when it has none."""
        return self.folder / "image.chunks"

    @property
    def sbom(self) -> Path:
        """Its bill of materials; absent when its packages could not be read."""
        return self.folder / "sbom.spdx.json"

    @property
    def log(self) -> Path:
        """All that the build printed."""
        return self.folder / "build.log"

    def to_json(self) -> dict[str, Any]:
        """The build record."""
        return {
            "format": _FORMAT,
            "recipe": self.recipe,
            "version": self.version,
            "arch": self.arch,
            "sif_digest": str(self.sif.digest),
            "size": self.sif.size,
            "created": self.created,
            "seconds": round(self.seconds, 3),
            "engine": self.engine,
            "inputs": self.key,
            "parts": dict(self.parts),
            "base": self.base,
            "base_digest": self.base_digest,
            "fingerprint": self.fingerprint,
        }

    def save(self) -> None:
        """Write the build record; it is written last, so a folder without it holds no candidate."""
        files.atomic_write(self.folder / "candidate.json", json.dumps(self.to_json(), indent=1) + "\n")


def folder_of(candidates: Path, recipe: str, arch: str) -> Path:
    """Where the candidate of a recipe and architecture lives."""
    return candidates / f"{recipe}-{arch}"


def load(candidates: Path, recipe: str, arch: str) -> Candidate:
    """Read a candidate. Raises NotFound when there is none, IntegrityFailure when its record is broken."""
    folder = folder_of(candidates, recipe, arch)
    try:
        value = json.loads((folder / "candidate.json").read_bytes())
        candidate = Candidate(
            folder=folder,
            recipe=str(value["recipe"]),
            version=str(value["version"]),
            arch=str(value["arch"]),
            sif=Descriptor(SIF_LAYER, Digest.parse(value["sif_digest"]), int(value["size"])),
            created=str(value["created"]),
            seconds=float(value["seconds"]),
            engine=str(value["engine"]),
            parts=dict(value["parts"]),
            key=str(value["inputs"]),
            base=str(value["base"]),
            base_digest=str(value["base_digest"]),
            fingerprint=str(value.get("fingerprint", "")),
        )
    except FileNotFoundError as error:
        raise NotFound(
            f"{recipe} has not been built for {arch}",
            why=f"no candidate in {folder}",
            fix=f"singfactory build {recipe}",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityFailure(
            f"the build record in {folder} is broken", why=repr(error)[:120], fix=f"singfactory build {recipe}"
        ) from error
    if not candidate.image.is_file():
        raise NotFound(f"the image of {recipe} is gone from {folder}", fix=f"singfactory build {recipe}")
    return candidate


def load_all(candidates: Path) -> tuple[Candidate, ...]:
    """Every candidate in a folder, by name; what cannot be read is none."""
    found = []
    for record in sorted(candidates.glob("*/candidate.json")):
        with contextlib.suppress(FactoryError):
            recipe, _, arch = record.parent.name.rpartition("-")
            found.append(load(candidates, recipe, arch))
    return tuple(found)


def load_if_whole(candidates: Path, recipe: str, arch: str, key: str) -> Candidate | None:
    """A candidate with this input key whose image still has its digest; None when there is none."""
    try:
        candidate = load(candidates, recipe, arch)
    except FactoryError:
        return None
    if candidate.key != key or candidate.image.stat().st_size != candidate.sif.size:
        return None
    digest, _ = files.digest_of(candidate.image)
    return candidate if digest == candidate.sif.digest else None

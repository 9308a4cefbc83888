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
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.errors import FactoryError, IntegrityFailure, NotFound
from factory.io import files, plain
from factory.io.rights import whose
from factory.oci.digest import Descriptor
from factory.oci.names import version_name
from factory.records.inputs import Inputs
from factory.records.record import Record
from factory.registry.protocol import SIF_LAYER

_FORMAT = 1
_LIMIT = 64 * 1024  # bytes of a build record
_TEXT_LIMIT = 1000  # characters of a text in it
_MOST_PARTS = 40
_FINGERPRINT = re.compile(r"[A-Za-z0-9:+._-]*", re.ASCII)
FILES = frozenset(
    {"image.sif", "candidate.json", "build.log", "image.chunks", "sbom.spdx.json", "report.json", "junit.xml"}
)
_KEYS = frozenset(
    {"format", "recipe", "version", "arch", "sif_digest", "size", "created", "seconds", "engine", "inputs", "parts"}
    | {"base", "base_digest", "fingerprint"}
)


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
    """Read a candidate. Raises NotFound when there is none, IntegrityFailure when it is broken or could be another's.

    Whoever built it may be a stranger: the record is read strictly, and speaks of this recipe and architecture.
    """
    folder = folder_of(candidates, recipe, arch)
    fix = f"singfactory build {recipe}"
    _require_own(candidates, folder)
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise IntegrityFailure(f"{folder} is no folder", why="it is a link, or a file", fix="remove it")
        candidate = _read(folder, Record.read(folder / "candidate.json", _LIMIT))
    except FileNotFoundError as error:
        raise NotFound(f"{recipe} has not been built for {arch}", why=f"no candidate in {folder}", fix=fix) from error
    except (OSError, ValueError, FactoryError) as error:
        raise IntegrityFailure(f"the build record in {folder} is broken", why=str(error)[:200], fix=fix) from error
    if (candidate.recipe, candidate.arch) != (recipe, arch):
        raise IntegrityFailure(
            f"{folder} holds a candidate of another name",
            why=f"its build record says {candidate.recipe!a} for {candidate.arch!a}",
            fix="remove that folder, and build again",
        )
    require_image(candidate)
    return candidate


def _require_own(candidates: Path, folder: Path) -> None:
    """Raise IntegrityFailure for what another user could have put there: it would be published as this user's."""
    for path in (candidates.parent, candidates, folder, *(folder / name for name in sorted(FILES))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if why := whose(path):
                raise IntegrityFailure(
                    f"{path} is not to be trusted",
                    why=f"{why}, and it could be another user's",
                    fix="remove it and build again, or set SINGFACTORY_WORK to a folder of your own",
                )


def _read(folder: Path, record: Record) -> Candidate:
    """The candidate that a build record tells of. Raises ValueError, FactoryError."""
    record.format(_FORMAT)
    record.only(_KEYS)
    parts = record.texts("parts", _MOST_PARTS, _TEXT_LIMIT)
    key, base_digest = str(record.digest("inputs")), record.text("base_digest", _TEXT_LIMIT)
    if key != str(Inputs(parts).key) or base_digest != parts.get("base", ""):
        raise ValueError("it contradicts itself: inputs and base_digest are not those of its parts")
    return Candidate(
        folder=folder,
        recipe=record.text("recipe", _TEXT_LIMIT),
        version=version_name(record.text("version", _TEXT_LIMIT)),
        arch=record.text("arch", _TEXT_LIMIT),
        sif=Descriptor(SIF_LAYER, record.digest("sif_digest"), record.size("size")),
        created=record.time("created"),
        seconds=record.seconds("seconds"),
        engine=record.text("engine", _TEXT_LIMIT),
        parts=parts,
        key=key,
        base=record.text("base", _TEXT_LIMIT),
        base_digest=base_digest,
        fingerprint=record.text("fingerprint", _TEXT_LIMIT, _FINGERPRINT) if record.has("fingerprint") else "",
    )


def require_image(candidate: Candidate) -> None:
    """Raise NotFound when its image is gone, IntegrityFailure when something else stands in its place."""
    try:
        found = candidate.image.lstat()
    except OSError as error:
        raise NotFound(
            f"the image of {candidate.recipe} is gone from {candidate.folder}",
            why=error.strerror or "",
            fix=f"singfactory build {candidate.recipe}",
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityFailure(
            f"{candidate.image} is no ordinary file",
            why="a link, a pipe or a folder stands in its place",
            fix=f"singfactory build {candidate.recipe}",
        )


def require_size(candidate: Candidate) -> None:
    """Raise IntegrityFailure when its image is not as long as its record says; nothing is read for that."""
    size = candidate.image.lstat().st_size
    if size != candidate.sif.size:
        raise IntegrityFailure(
            f"{candidate.image} is not the image that was built",
            why=f"wanted {candidate.sif.size} bytes, got {size}",
            fix=f"build it again: singfactory build --force {candidate.recipe}",
        )


def require_intact(candidate: Candidate) -> None:
    """Raise IntegrityFailure when its image is not the one that its record names; all of it is hashed for that."""
    require_image(candidate)
    require_size(candidate)
    try:
        digest, size = plain.digest_of(candidate.image)
    except OSError as error:
        raise IntegrityFailure(f"{candidate.image} cannot be read", why=error.strerror or "") from error
    if (digest, size) != (candidate.sif.digest, candidate.sif.size):
        raise IntegrityFailure(
            f"{candidate.image} is not the image that was built",
            why=f"wanted {candidate.sif.digest} and {candidate.sif.size} bytes, got {digest} and {size}",
            fix=f"build it again: singfactory build --force {candidate.recipe}",
        )


def require_within(candidate: Candidate, disk: int) -> None:
    """Raise IntegrityFailure when its image is larger than the room that its recipe asks for, build.disk in bytes.

    Nothing is read for that: a job that was taken over can hand over terabytes of zeros, which take days to hash.
    """
    size = max(candidate.sif.size, candidate.image.lstat().st_size)
    if size > disk:
        raise IntegrityFailure(
            f"the image of {candidate.recipe} has {files.readable_size(size)}",
            why=f"its recipe says that a build needs {files.readable_size(disk)} of disk",
            fix="raise build.disk in recipe.toml, if the image is meant to be that large",
        )


def load_if_intact(candidates: Path, recipe: str, arch: str, key: str) -> Candidate | None:
    """A candidate with this input key whose image still has its digest; None when there is none."""
    try:
        candidate = load(candidates, recipe, arch)
    except FactoryError:
        return None
    if candidate.key != key or candidate.image.lstat().st_size != candidate.sif.size:
        return None
    digest, _ = plain.digest_of(candidate.image)
    return candidate if digest == candidate.sif.digest else None

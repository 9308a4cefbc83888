"""A candidate: an image that was built and not yet published, in its own folder.

<candidates>/<recipe>-<arch>/image.sif       the image
                             candidate.json  the build record: inputs, engine, digest, size
                             build.log       the build's output
                             image.chunks    the chunk index, for updates of older images
                             sbom.spdx.json  the packages in the image
                             report.json     the test report; junit.xml is the same for CI
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

from factory.errors import FactoryError, IntegrityFailure, NotFound, PlaceUnusable
from factory.io import files, plain
from factory.io.progress import Progress, Silent, step
from factory.io.rights import whose
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import version_name
from factory.records.inputs import Inputs
from factory.records.record import Record
from factory.registry.protocol import SIF_LAYER
from factory.sif.needs import Needs

_FORMAT = 1
_LIMIT = 64 * 1024  # bytes of a build record
_TEXT_LIMIT = 1000  # characters of a text in it
_MOST_PARTS = 40
_NEAR = 0.9  # of the recipe's build.disk
_FINGERPRINT = re.compile(r"[A-Za-z0-9:+._-]*", re.ASCII)
FILES = frozenset(
    {"image.sif", "candidate.json", "build.log", "image.chunks", "sbom.spdx.json", "report.json", "junit.xml"}
)
_KEYS = frozenset(
    {"format", "recipe", "version", "arch", "sif_digest", "size", "created", "seconds", "engine", "inputs", "parts"}
    | {"base", "base_digest", "fingerprint", "disk", "needs"}
)


@dataclass(frozen=True)
class Candidate:
    """The result of one build. created: ISO 8601, UTC. seconds: wall time of the build. key: the input key.

    fingerprint: of the contents (factory.sif.fingerprint); '' if they could not be read. disk: bytes that the build
    took on disk at most; 0 if unknown. needs: of the machine's GPU driver.
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
    disk: int = 0
    needs: Needs = field(default_factory=Needs)

    @property
    def image(self) -> Path:
        """The path of the SIF."""
        return self.folder / "image.sif"

    @property
    def chunks(self) -> Path:
        """The path of the chunk index, which may not exist."""
        return self.folder / "image.chunks"

    @property
    def sbom(self) -> Path:
        """The path of the bill of materials; it does not exist if the packages could not be read."""
        return self.folder / "sbom.spdx.json"

    @property
    def log(self) -> Path:
        """The path of the build's output."""
        return self.folder / "build.log"

    def to_json(self) -> dict[str, Any]:
        """Return the build record."""
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
            "disk": self.disk,
            "needs": self.needs.to_json(),
        }

    def save(self) -> None:
        """Write the build record. It is written last: a folder without it has no candidate."""
        files.atomic_write(self.folder / "candidate.json", json.dumps(self.to_json(), indent=1) + "\n")


def folder_of(candidates: Path, recipe: str, arch: str) -> Path:
    """Return the folder for the candidate of a recipe and architecture."""
    return candidates / f"{recipe}-{arch}"


def require_folder(folder: Path) -> None:
    """Raise PlaceUnusable if a folder for candidates has an image that no build made: a build would replace it."""
    if (folder / "image.sif").exists() and not any(
        (folder / name).exists() for name in ("candidate.json", "build.log")
    ):
        raise PlaceUnusable(
            f"{folder / 'image.sif'} is in the way",
            why="it was not built here: there is no build record next to it",
            fix="move it, or name another folder with -o",
        )


def load(candidates: Path, recipe: str, arch: str) -> Candidate:
    """Read a candidate. Raises NotFound if there is none, IntegrityFailure if it is broken or may be another user's.

    The record is untrusted input: it is parsed strictly, and must be for this recipe and architecture.
    """
    folder = folder_of(candidates, recipe, arch)
    fix = f"singfactory build {recipe}"
    _require_own(candidates, folder)
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise IntegrityFailure(f"{folder} is not a folder", why="it is a link or a file", fix="remove it")
        candidate = _read(folder, Record.read(folder / "candidate.json", _LIMIT))
    except FileNotFoundError as error:
        raise NotFound(f"{recipe} has not been built for {arch}", why=f"no candidate in {folder}", fix=fix) from error
    except (OSError, ValueError, FactoryError) as error:
        raise IntegrityFailure(f"the build record in {folder} is broken", why=str(error)[:200], fix=fix) from error
    if (candidate.recipe, candidate.arch) != (recipe, arch):
        raise IntegrityFailure(
            f"{folder} has the candidate of another recipe",
            why=f"its build record is for {candidate.recipe!a} on {candidate.arch!a}",
            fix="remove that folder and build again",
        )
    require_image(candidate)
    return candidate


def _require_own(candidates: Path, folder: Path) -> None:
    """Raise IntegrityFailure if another user could have written the candidate: it would be published as this user's."""
    for path in (candidates.parent, candidates, folder, *(folder / name for name in sorted(FILES))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if why := whose(path):
                raise IntegrityFailure(
                    f"{path} is not trusted",
                    why=f"{why}, so it could be another user's",
                    fix="remove it and build again, or set SINGFACTORY_WORK to a private folder",
                )


def _read(folder: Path, record: Record) -> Candidate:
    """Return the candidate that a build record describes. Raises ValueError, FactoryError."""
    record.format(_FORMAT)
    record.only(_KEYS)
    parts = record.texts("parts", _MOST_PARTS, _TEXT_LIMIT)
    key, base_digest = str(record.digest("inputs")), record.text("base_digest", _TEXT_LIMIT)
    if key != str(Inputs(parts).key) or base_digest != parts.get("base", ""):
        raise ValueError("it contradicts itself: inputs and base_digest do not match its parts")
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
        disk=record.size("disk") if record.has("disk") else 0,
        needs=_needs(record.value("needs")) if record.has("needs") else Needs(),
    )


def _needs(value: object) -> Needs:
    """Return what the image needs. Raises ValueError for anything that singfactory does not write."""
    found = Needs.from_json(value)
    if found.to_json() != value:
        raise ValueError("needs is malformed")
    return found


def require_image(candidate: Candidate) -> None:
    """Raise NotFound if the candidate's image is missing, IntegrityFailure if it is not a regular file."""
    try:
        found = candidate.image.lstat()
    except OSError as error:
        raise NotFound(
            f"the image of {candidate.recipe} is missing in {candidate.folder}",
            why=error.strerror or "",
            fix=f"singfactory build {candidate.recipe}",
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityFailure(
            f"{candidate.image} is not a regular file",
            why="it is a link, a pipe or a folder",
            fix=f"singfactory build {candidate.recipe}",
        )


def require_size(candidate: Candidate) -> None:
    """Raise IntegrityFailure if the image's size differs from its record. Does not read the image."""
    size = candidate.image.lstat().st_size
    if size != candidate.sif.size:
        raise IntegrityFailure(
            f"{candidate.image} is not the image that was built",
            why=f"expected {candidate.sif.size} bytes, got {size}",
            fix=f"build it again: singfactory build --force {candidate.recipe}",
        )


def require_intact(candidate: Candidate, progress: Progress | None = None) -> None:
    """Raise IntegrityFailure if the image's size or digest differs from its record. Hashes the whole image."""
    require_image(candidate)
    require_size(candidate)
    try:
        digest, size = _hashed(candidate, progress)
    except OSError as error:
        raise IntegrityFailure(f"{candidate.image} cannot be read", why=error.strerror or "") from error
    if (digest, size) != (candidate.sif.digest, candidate.sif.size):
        raise IntegrityFailure(
            f"{candidate.image} is not the image that was built",
            why=f"expected {candidate.sif.digest} and {candidate.sif.size} bytes, got {digest} and {size}",
            fix=f"build it again: singfactory build --force {candidate.recipe}",
        )


def _hashed(candidate: Candidate, progress: Progress | None) -> tuple[Digest, int]:
    with step(progress or Silent(), f"hash {candidate.recipe}", candidate.sif.size) as advance:
        return plain.digest_of(candidate.image, advance)


def require_within(candidate: Candidate, disk: int) -> None:
    """Raise IntegrityFailure if the image is larger than disk, the recipe's build.disk in bytes.

    Does not read the image: a compromised job can produce terabytes of zeros, which would take days to hash.
    """
    size = max(candidate.sif.size, candidate.image.lstat().st_size)
    if size > disk:
        raise IntegrityFailure(
            f"the image of {candidate.recipe} has {files.readable_size(size)}",
            why=f"its recipe limits a build to {files.readable_size(disk)} of disk",
            fix="if the image should be that large, raise [build] disk in recipe.toml",
        )


def disk_hint(candidate: Candidate, disk: int) -> str:
    """Return a sentence if the build came near to disk, the recipe's build.disk in bytes, or exceeded it; else ''."""
    if candidate.disk < _NEAR * disk:
        return ""
    used, declared = files.readable_size(candidate.disk), files.readable_size(disk)
    return f"its build took {used} of disk, and [build] disk is {declared}: raise it in recipe.toml"


def last_seconds(candidates: Path, recipe: str, arch: str) -> float | None:
    """Return how long the last build took, in seconds, or None if there is no usable record of it."""
    try:
        return load(candidates, recipe, arch).seconds
    except FactoryError:
        return None


def load_if_intact(
    candidates: Path, recipe: str, arch: str, key: str, progress: Progress | None = None
) -> Candidate | None:
    """Return the candidate if it has this input key and its image still has its digest, or None."""
    try:
        candidate = load(candidates, recipe, arch)
    except FactoryError:
        return None
    if candidate.key != key or candidate.image.lstat().st_size != candidate.sif.size:
        return None
    digest, _ = _hashed(candidate, progress)
    return candidate if digest == candidate.sif.digest else None

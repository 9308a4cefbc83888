"""Pull: a release becomes a verified, read-only image in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Any

from factory.errors import IntegrityFailure
from factory.io import files
from factory.io.progress import Progress
from factory.names import Reference
from factory.registry.protocol import Registry
from factory.resolve import resolve
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Pulled:
    """What a pull did. transferred: bytes fetched from the registry; reused: bytes that were here before."""

    image: StoredImage
    path: Path
    transferred: int
    reused: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As `pull --json` prints it."""
        return {
            "name": self.image.recipe,
            "tag": self.image.tag,
            "digest": str(self.image.digest),
            "sif_digest": str(self.image.sif_digest),
            "path": str(self.path),
            "size": self.image.size,
            "transferred": self.transferred,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
            "registry": self.image.registry,
        }


def pull(reference: Reference, *, registry: Registry, store: Store, arch: str, progress: Progress) -> Pulled:
    """Fetch what a reference names into the store, verified, unless it is there: then it was verified when it came.

    Raises NotFound, RegistryFailure, IntegrityFailure, NoRoom. Whatever ends it, the store stays whole and the
    next pull goes on from there.
    """
    started = monotonic()
    found = resolve(reference, registry, arch)
    release = found.release
    if found.notice:
        progress.note(found.notice)
    path, transferred = store.ingest(
        release.sif, lambda offset: registry.blob(release.recipe, release.sif, offset), progress
    )
    image = StoredImage(
        recipe=release.recipe,
        tag=str(release.tag) if release.tag.build else found.tags[0],
        registry=registry.describe(),
        digest=release.digest,
        sif_digest=release.sif.digest,
        size=release.sif.size,
        pulled=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        gpu=release.run.gpu,
        env=release.run.env,
        binds=release.run.binds,
    )
    store.record(image, found.tags)
    return Pulled(image, path, transferred, release.sif.size - transferred, monotonic() - started)


def copy_out(pulled: Pulled, destination: Path) -> Path:
    """Put a copy of a stored image at a path of the user's choice (`pull -o`), complete or not at all."""
    final = destination / f"{pulled.image.recipe}-{pulled.image.tag}.sif" if destination.is_dir() else destination
    files.make_folder(final.parent)
    files.require_space(final.parent, pulled.image.size, "to copy the image")
    with files.temporary_in(final.parent, final.name) as temporary:
        files.copy_file(pulled.path, temporary)
        digest, _ = files.digest_of(temporary)
        if digest != pulled.image.sif_digest:
            raise IntegrityFailure(
                f"the stored image {pulled.path} has changed",
                why=f"wanted {pulled.image.sif_digest}, got {digest}",
                fix="singfactory store verify, then pull again",
            )
        files.rename_into_place(temporary, final)
    return final

"""Stage: an image is copied to the node's own disk once, however many processes of a job ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.digest import Descriptor
from factory.errors import IntegrityFailure
from factory.io import files
from factory.io.progress import Progress
from factory.registry.protocol import SIF_LAYER
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Staged:
    """A copy on this node; copied: bytes that this call copied, 0 when it was there."""

    path: Path
    copied: int


def stage(image: StoredImage, *, store: Store, local: Path, progress: Progress) -> Staged:
    """Make the image present below ``local``, a folder on this node's disk, verified like any blob of a store.

    One process copies, the others wait for it. Raises NoRoom, IntegrityFailure (the store's copy is damaged).
    """
    wanted = Descriptor(SIF_LAYER, image.sif_digest, image.size)
    source = store.blob(image.sif_digest)
    try:
        path, copied = Store(local).ingest(wanted, lambda offset: files.blocks_of(source, offset), progress)
    except (IntegrityFailure, FileNotFoundError) as error:
        raise IntegrityFailure(
            f"the stored image {source} is gone or damaged",
            why=str(error),
            fix=f"singfactory store verify, then: singfactory pull {image.recipe}:{image.tag}",
        ) from error
    return Staged(path, copied)

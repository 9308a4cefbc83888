"""Stage: an image is copied to the node's own disk once, however many processes of a job ask for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Staged:
    """A copy on this node; copied: bytes that this call copied, 0 when it was there."""

    path: Path
    copied: int


def stage(image: StoredImage, *, store: Store, local: Path, progress: Progress) -> Staged:
    """Make the image present below ``local``, a folder on this node's disk, verified like any blob of a store.

    One process copies, the others wait for it. Raises PlaceUnusable, Busy, Purged, and IntegrityFailure (the store's
    file is damaged).
    """
    source = store.file(image, hashed=False)
    on_node = replace(store, root=local, shared=())
    try:
        blocks = Source(lambda offset, _: plain.blocks_of(source, offset))
        # Who copies an image to a node's disk runs it there now; who pulls one runs it elsewhere, or later.
        path, copied = fetch_whole(on_node, image.sif, blocks, progress, cached=True)
    except IntegrityFailure as error:
        raise IntegrityFailure(
            f"the stored image {source} is damaged",
            why=str(error),
            fix="singfactory store verify --repair",
        ) from error
    return Staged(path, copied)

"""Copy an image to the node's local disk. One process copies, all others use its copy."""

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
    """A copy on this node. copied: bytes copied by this call, 0 if the copy existed."""

    path: Path
    copied: int


def stage(image: StoredImage, *, store: Store, local: Path, progress: Progress) -> Staged:
    """Copy the image below ``local``, a folder on this node's disk, and verify it like any blob of a store.

    One process copies while the others wait. Raises PlaceUnusable, Busy, Purged, and IntegrityFailure (the store's
    file is damaged).
    """
    source = store.file(image, hashed=False)
    on_node = replace(store, root=local, shared=())
    try:
        blocks = Source(lambda offset, _: plain.blocks_of(source, offset))
        # A staged image is run on this node at once, so its pages are worth caching. A pulled one often is not.
        path, copied = fetch_whole(on_node, image.sif, blocks, progress, label=f"stage {image.recipe}", cached=True)
    except IntegrityFailure as error:
        raise IntegrityFailure(
            f"the stored image {source} is damaged",
            why=str(error),
            fix="singfactory store verify --repair",
        ) from error
    return Staged(path, copied)

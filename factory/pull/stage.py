"""Copy an image to the node's local disk. One process copies, all others use its copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress
from factory.pull.neighbors import Neighbors
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Staged:
    """A copy on this node. copied: bytes copied by this call, 0 if the copy existed. linked: another job made it."""

    path: Path
    copied: int
    linked: bool = False


class Relay(Protocol):
    """Passes an image on from node to node while it is copied (factory.jobs.broadcast)."""

    def join(self, descriptor: int) -> None:
        """Let other nodes read this file as it grows."""

    def read(self, offset: int, length: int | None) -> Iterable[bytes]:
        """Yield the image's bytes from an offset on."""

    def finish(self) -> None:
        """The file is complete and verified."""


def on_node(store: Store, local: Path) -> Store:
    """Return the store of staged copies in a folder on this node."""
    return replace(store, root=local, shared=())


def stage(
    image: StoredImage,
    *,
    store: Store,
    local: Path,
    progress: Progress,
    relay: Relay | None = None,
    prepare: Callable[[], None] = lambda: None,
    neighbors: Neighbors | None = None,
) -> Staged:
    """Copy the image below ``local``, a folder on this node's disk, and verify it like any blob of a store.

    One process copies while the others wait. relay: where the bytes come from; by default the store's file. prepare:
    called by the one that copies, before the first byte. neighbors: this user's other jobs on the node, which share one
    copy. Raises PlaceUnusable, Busy, Purged, and IntegrityFailure
    (the store's file is damaged).
    """
    source = store.file(image, hashed=False)
    here = on_node(store, local)

    def copy(begun: Callable[[], None]) -> Staged:
        def begin(descriptor: int) -> None:
            begun()
            prepare()
            if relay is not None:
                relay.join(descriptor)

        read = relay.read if relay is not None else lambda offset, _: plain.blocks_of(source, offset)
        # A staged image is run on this node at once, so its pages are worth caching. A pulled one often is not.
        label = f"stage {image.recipe}"
        path, copied = fetch_whole(here, image.sif, Source(read), progress, label=label, cached=True, begun=begin)
        if relay is not None and copied:
            relay.finish()
        return Staged(path, copied)

    try:
        return copy(lambda: None) if neighbors is None else _among(neighbors, here, image, progress, copy)
    except IntegrityFailure as error:
        raise IntegrityFailure(
            f"the stored image {source} is damaged",
            why=str(error),
            fix="singfactory store verify --repair",
        ) from error


def _among(
    neighbors: Neighbors,
    here: Store,
    image: StoredImage,
    progress: Progress,
    copy: Callable[[Callable[[], None]], Staged],
) -> Staged:
    """Use the copy of another job on this node, or make one when no other job does."""
    while here.usable_here(image.sif) is None:
        neighbors.wait(image.sif, progress)
        with contextlib.ExitStack() as turn:
            turn.enter_context(neighbors.turn())
            if neighbors.is_copying_here(image.sif):
                turn.close()  # which may take long
            elif neighbors.is_copying(image.sif):
                continue
            elif (linked := neighbors.link(image.sif)) is not None:  # after the look for those who copy: one may end
                return Staged(linked, 0, linked=True)
            return copy(turn.close)
    return copy(lambda: None)

"""Images of a store that a new one may share bytes with, and their chunk indexes.

    chunks/<sif hex>.chunks   the chunk index of an image that is here or in a shared store

An index only saves fetching: what comes out wrong by a wrong one does not get through the digest of the whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from factory.errors import FactoryError
from factory.io.below import entries
from factory.oci.digest import Descriptor, Digest
from factory.store.store import Store

_FOLDER = "chunks"
_MOST = 8  # images that are looked at; each costs reading its index


class Seed(NamedTuple):
    """An image that is here, with the recipe that it is of."""

    digest: Digest
    path: Path
    recipe: str


def seeds(store: Store, recipe: str, wanted: Descriptor) -> tuple[Seed, ...]:
    """The images that may have bytes of a wanted one: those of the same recipe first, of these the newest."""
    images = {image.sif_digest: image for _, image in store.images() if image.sif_digest != wanted.digest}
    nearest = sorted(images.values(), key=lambda image: (image.recipe == recipe, image.pulled), reverse=True)
    found = ((image, store.where(image.sif)) for image in nearest[:_MOST])
    return tuple(Seed(image.sif_digest, path, image.recipe) for image, path in found if path is not None)


def remembered(store: Store, digest: Digest, limit: int) -> bytes | None:
    """The chunk index of an image, at most so many bytes; None when none is kept. It may be anybody's work."""
    with contextlib.suppress(OSError, FactoryError), store.holding(_place(store, digest)) as kept:
        return kept.folder.read(kept.name, limit)[0]
    return None


def remember(store: Store, digest: Digest, content: bytes) -> None:
    """Keep the chunk index of an image, where this user may."""
    path = _place(store, digest)
    with contextlib.suppress(OSError, FactoryError), store.opened() as root, root.make(_FOLDER) as chunks:
        if not store.trust.doubt_of_folders(path, store.root):
            chunks.write(path.name, content)


def forget(store: Store, digest: Digest) -> None:
    """Keep the index of an image no longer: it was wrong, or nobody knows whether it was."""
    with contextlib.suppress(OSError, FactoryError), store.holding(_place(store, digest)) as kept:
        kept.remove()


def stale_indexes(store: Store) -> Iterator[Path]:
    """Kept indexes of images that are no longer here, and whatever else lies among them."""
    for path in entries(store.root / _FOLDER):
        digest = Digest("sha256", path.stem)
        if path != _place(store, digest) or not store.has_file(digest):
            yield path


def _place(store: Store, digest: Digest) -> Path:
    return store.root / _FOLDER / f"{digest.hex}.chunks"

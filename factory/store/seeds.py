"""Stored images that a new image may share bytes with, and their chunk indexes.

    chunks/<sif hex>.chunks   the chunk index of an image that is here or in a shared store

An index only saves downloads. A wrong one cannot produce a wrong image: the digest of the whole file is checked.
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
_MOST = 8  # images to consider; for each, an index has to be read


class Seed(NamedTuple):
    """A stored image and its recipe."""

    digest: Digest
    path: Path
    recipe: str


def seeds(store: Store, recipe: str, wanted: Descriptor) -> tuple[Seed, ...]:
    """Return images that may share bytes with the wanted one: same recipe first, then newest first."""
    images = {image.sif_digest: image for _, image in store.images() if image.sif_digest != wanted.digest}
    nearest = sorted(images.values(), key=lambda image: (image.recipe == recipe, image.pulled), reverse=True)
    found = ((image, store.where(image.sif)) for image in nearest[:_MOST])
    return tuple(Seed(image.sif_digest, path, image.recipe) for image, path in found if path is not None)


def remembered(store: Store, digest: Digest, limit: int) -> bytes | None:
    """Return an image's stored chunk index, at most limit bytes, or None. It is untrusted input."""
    with contextlib.suppress(OSError, FactoryError), store.holding(_place(store, digest)) as kept:
        return kept.folder.read(kept.name, limit)[0]
    return None


def remember(store: Store, digest: Digest, content: bytes) -> None:
    """Store the chunk index of an image, if this user may write the store."""
    path = _place(store, digest)
    with contextlib.suppress(OSError, FactoryError), store.opened() as root, root.make(_FOLDER) as chunks:
        if not store.trust.doubt_of_folders(path, store.root):
            chunks.write(path.name, content)


def forget(store: Store, digest: Digest) -> None:
    """Remove an image's chunk index, because it was or may have been wrong."""
    with contextlib.suppress(OSError, FactoryError), store.holding(_place(store, digest)) as kept:
        kept.remove()


def stale_indexes(store: Store) -> Iterator[Path]:
    """Yield chunk indexes of images that are gone, and any other file in their folder."""
    for path in entries(store.root / _FOLDER):
        digest = Digest("sha256", path.stem)
        if path != _place(store, digest) or not store.has_file(digest):
            yield path


def _place(store: Store, digest: Digest) -> Path:
    return store.root / _FOLDER / f"{digest.hex}.chunks"

"""Examine: what is in an image that was just built: its digest and chunks, its contents as a fingerprint, its packages.

Nothing of it is run. All that later stages say of an image comes from here: what a rebuild changed, whether it changed
anything, and which of its bytes others have already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.delta.index import index_image
from factory.digest import Descriptor
from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress
from factory.registry.protocol import SIF_LAYER
from factory.sif.fingerprint import content_size, fingerprint_of
from factory.sif.packages import Packages, installed
from factory.sif.squashfs import BlocksUnknown
from factory.sif.tree import open_tree


@dataclass(frozen=True)
class Examined:
    """What an image is. chunks: its chunk index; fingerprint, packages: of its files. Empty where it is unreadable."""

    sif: Descriptor
    chunks: bytes = b""
    fingerprint: str = ""
    packages: Packages | None = None


def examine(image: Path, progress: Progress) -> Examined:
    """Read an image. Of one that cannot be understood only digest and size are told, and a notice says so."""
    try:
        index = index_image(image, progress)
        sif = Descriptor(SIF_LAYER, index.digest, index.size)
    except IntegrityFailure as error:
        progress.note(f"it is published without a chunk index and a fingerprint: {error}")
        digest, size = plain.digest_of(image)
        return Examined(Descriptor(SIF_LAYER, digest, size))
    try:
        with open_tree(image) as tree:
            progress.begin("looking into the image", content_size(tree))
            try:
                found = str(fingerprint_of(tree, progress.advance))
            finally:
                progress.end()
            return Examined(sif, index.encode(), found, installed(tree))
    except (BlocksUnknown, IntegrityFailure) as error:
        progress.note(f"it is published without a fingerprint: {error}")
        return Examined(sif, index.encode())

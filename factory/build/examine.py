"""Examine: what is in an image that was just built: its digest and chunks, its contents as a fingerprint, its packages.

Nothing of it is run. All that later stages say of an image comes from here: what a rebuild changed, whether it changed
anything, and which of its bytes others have already.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path

from factory.delta.index import index_image
from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress
from factory.oci.digest import Descriptor
from factory.registry.protocol import SIF_LAYER
from factory.sif.fingerprint import content_size, fingerprint_of
from factory.sif.header import read_sif_header
from factory.sif.packages import Packages, installed
from factory.sif.squashfs import BlocksUnknown
from factory.sif.tree import open_tree


@dataclass(frozen=True)
class Examined:
    """What an image is. chunks: its chunk index. fingerprint, packages: of its files; empty where unreadable."""

    sif: Descriptor
    chunks: bytes
    fingerprint: str = ""
    packages: Packages | None = None


def examine(image: Path, progress: Progress) -> Examined:
    """Read an image. Where its files cannot be read, their fingerprint and packages are left out, and a notice says so.

    Raises IntegrityFailure when it is not a sound SIF with a file system in it.
    """
    _require_file_system(image)
    index = index_image(image, progress)
    sif = Descriptor(SIF_LAYER, index.digest, index.size)
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


def _require_file_system(image: Path) -> None:
    with plain.reading(image) as file:
        header = read_sif_header(file, file.seek(0, SEEK_END), image.name)
    if header.primary_system is None:
        raise IntegrityFailure(
            f"{image.name} is not an image that can run",
            why="it has no primary system partition",
            fix="build it again; something that ran meanwhile may have put another file there",
        )

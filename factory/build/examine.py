"""Examine a newly built image: its digest, chunk index, content fingerprint, packages and the GPU driver it needs.

Nothing in the image is run. Later stages use these facts to say what a rebuild changed, whether it changed anything,
and which bytes clients already have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os import SEEK_END
from pathlib import Path

from factory.delta.index import index_image
from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress, step
from factory.oci.digest import Descriptor
from factory.registry.protocol import SIF_LAYER
from factory.sif.cuda import needs_of
from factory.sif.fingerprint import content_size, fingerprint_of
from factory.sif.header import read_sif_header
from factory.sif.needs import Needs
from factory.sif.packages import Packages, installed
from factory.sif.squashfs import BlocksUnknown
from factory.sif.tree import open_tree


@dataclass(frozen=True)
class Examined:
    """Facts about an image. chunks: its chunk index. The rest is from its files, and empty if they are unreadable."""

    sif: Descriptor
    chunks: bytes
    fingerprint: str = ""
    packages: Packages | None = None
    needs: Needs = field(default_factory=Needs)


def examine(image: Path, progress: Progress) -> Examined:
    """Read an image. If its files cannot be read, fingerprint and packages are left empty, with a notice.

    Raises IntegrityFailure if it is not a valid SIF with a file system.
    """
    _require_file_system(image)
    index = index_image(image, progress)
    sif = Descriptor(SIF_LAYER, index.digest, index.size)
    try:
        with open_tree(image) as tree:
            with step(progress, "examine the image", content_size(tree)) as advance:
                found = str(fingerprint_of(tree, advance))
            return Examined(sif, index.encode(), found, installed(tree), needs_of(tree))
    except (BlocksUnknown, IntegrityFailure) as error:
        progress.note(f"it is published without a fingerprint: {error}")
        return Examined(sif, index.encode())


def _require_file_system(image: Path) -> None:
    with plain.reading(image) as file:
        header = read_sif_header(file, file.seek(0, SEEK_END), image.name)
    if header.primary_system is None:
        raise IntegrityFailure(
            f"{image.name} is not a runnable image",
            why="it has no primary system partition",
            fix="build it again; another process may have replaced the file",
        )

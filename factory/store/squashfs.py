"""The root file system of a stored image as a file of its own, for tools that take a squashfs and no SIF (enroot).

    squashfs/<sif hex>.squashfs   a copy of the SIF's primary partition; removed by gc after the image

A SIF has the file system at an offset, aligned to 4096 bytes, so that file systems with shared extents (XFS, Btrfs)
store its bytes once.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from factory.errors import IntegrityFailure, UsageError
from factory.io import files, plain
from factory.io.below import Folder, entries
from factory.io.copying import copy_range
from factory.io.locks import lock_in
from factory.io.progress import Progress, step
from factory.sif.header import Partition, require_runnable
from factory.store.refs import StoredImage
from factory.store.store import ELSEWHERE, LOCK_TIMEOUT, Store

FOLDER = "squashfs"
_SUFFIX = ".squashfs"
_STEP = 64 << 20  # bytes between two reports
_READ_ONLY = 0o444


def files_of(root: Path) -> list[Path]:
    """Return the squashfs files of a store, each named after its image's SIF digest."""
    return [path for path in entries(root / FOLDER) if path.suffix == _SUFFIX and not path.name.startswith(".")]


def squashfs_of(store: Store, image: StoredImage, progress: Progress) -> Path:
    """Return the path of the image's root file system as a squashfs, and make the file if the store lacks it.

    One process copies, all others wait for it and use its copy. Raises UsageError if the image has another file system,
    IntegrityFailure if an untrusted user owns the file, NoRoom, NotPermitted, Purged.
    """
    with plain.reading(store.file(image)) as source:
        system = _system(source, image)
        name = image.sif_digest.hex + _SUFFIX
        with store.opened() as root, root.make(FOLDER) as folder, root.make("locks") as locks:
            if not _is_there(store, folder, name, system.size):
                with lock_in(locks, f"{FOLDER}-{image.sif_digest.hex}.lock", LOCK_TIMEOUT, progress, instead=ELSEWHERE):
                    if not _is_there(store, folder, name, system.size):
                        _copy(source, system, folder, name, progress)
            return folder.path / name


def _system(source: BinaryIO, image: StoredImage) -> Partition:
    system = require_runnable(source, image.size, image.recipe).primary_system
    if system is None or system.file_system != "squashfs":
        raise UsageError(
            f"{image.recipe}:{image.tag} has no squashfs",
            why=f"its file system is {system.file_system if system else 'missing'}",
            fix=f"run it with: singfactory exec {image.recipe}:{image.tag} PROGRAM",
        )
    return system


def _is_there(store: Store, folder: Folder, name: str, size: int) -> bool:
    try:
        found = folder.stat(name)
    except FileNotFoundError:
        return False
    doubt = store.trust.doubt(folder.path / name, found, store.root)
    if doubt or not stat.S_ISREG(found.st_mode):
        raise IntegrityFailure(
            f"{folder.path / name} is not safe to use",
            why=doubt or "it is not a regular file",
            fix="remove it, or use a store of your own (--store DIR)",
        )
    return found.st_size == size


def _copy(source: BinaryIO, system: Partition, folder: Folder, name: str, progress: Progress) -> None:
    files.require_space(folder.path, system.size, "for the squashfs")
    with folder.temporary(name) as temporary, step(progress, "copy the squashfs", system.size) as advance:
        with folder.create(temporary, _READ_ONLY) as target, files.explained(folder.path / name, system.size):
            done = 0
            while done < system.size:
                count = copy_range(
                    source.fileno(), target.fileno(), system.offset + done, min(_STEP, system.size - done)
                )
                if not count:
                    raise IntegrityFailure("the image was truncated just now", fix="singfactory store verify")
                done += count
                advance(count)
        folder.rename(temporary, folder, name)

"""Add an existing SIF file to the store, without a second copy where that is safe.

The store shares the file's blocks (reflink), or else hard-links it, or else copies it. A file is only hard-linked if
nobody but this user can write it: this user owns it, it has one link, its mode lets nobody else write, and no process
has it open for writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from factory.errors import IntegrityFailure, NotFound, UsageError
from factory.io import files, modes
from factory.io.below import Entry
from factory.io.locks import lock_in
from factory.io.owners import is_own
from factory.io.progress import Progress, step
from factory.oci.names import Reference
from factory.sif.header import require_runnable
from factory.store.refs import StoredImage
from factory.store.store import ELSEWHERE, LOCK_TIMEOUT, Store

DEFAULT_TAG = "adopted"

_FICLONE = 0x40049409  # ioctl_ficlonerange(2)
_READ_ONLY = 0o444
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class Adopted:
    """The result of an adoption. way: 'reflink', 'link', 'copy', or 'here' if the store already had the image."""

    image: StoredImage
    path: Path
    way: str


def adopt(store: Store, source: Path, reference: Reference, progress: Progress) -> Adopted:
    """Add a file to the store as NAME:TAG, hashed and read-only. A tag that a registry's image has is not replaced.

    Raises NotFound, UsageError (not a SIF, tag taken), IntegrityFailure (the file changes meanwhile), PlaceUnusable.
    """
    tag = reference.tag or DEFAULT_TAG
    with (
        _opened(source) as file,
        store.opened() as root,
        root.make("partial") as partial,
        partial.temporary("adopt") as name,
    ):
        temporary = partial.named(name)
        way = _bring(file, source, temporary, progress)
        with partial.reading(name) as descriptor:
            before = os.fstat(descriptor)
            size = before.st_size
            with step(progress, f"hash {source.name}", size) as advance:
                digest = files.digest_of_open(descriptor, advance)
        image = StoredImage(
            recipe=reference.name,
            tag=tag,
            registry="",
            digest=digest,
            sif_digest=digest,
            size=size,
            pulled=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        known = _known_as(store, image)
        store.lease(digest)
        path = store.blob(digest)
        with (
            root.make("locks") as locks,
            lock_in(locks, f"{digest.hex}.lock", LOCK_TIMEOUT, progress, instead=ELSEWHERE),
        ):
            here = store.usable(image.sif)
            if here is None:
                _make_read_only(temporary, before, way)
                with root.make(*path.relative_to(store.root).parent.parts) as final:
                    partial.rename(name, final, path.name)
    if known is None:
        store.record(image, [tag])
    return Adopted(known or image, here or path, way if here is None else "here")


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    """Open the file to adopt: a regular file with a SIF header."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {source}") from error
    with os.fdopen(descriptor, "rb") as file:
        if why := _fault(file):
            raise UsageError(
                f"{source} is not a SIF image",
                why=why,
                fix="convert other formats with: apptainer build IMAGE.sif SOURCE",
            )
        yield file


def _fault(file: BinaryIO) -> str:
    """Return why an open file is not a SIF that an engine can start, or ''."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    try:
        require_runnable(file, found.st_size, "")
    except IntegrityFailure as error:
        return error.why
    return ""


def _bring(file: BinaryIO, source: Path, temporary: Entry, progress: Progress) -> str:
    """Bring the file into the store at temporary by the cheapest safe method."""
    if _clone(file, temporary):
        return "reflink"
    if _is_ours_alone(file) and _link(file, source, temporary):
        return "link"
    size = os.fstat(file.fileno()).st_size
    files.require_space(temporary.folder.path, size, "to adopt the image")
    progress.note(f"copying {source} ({files.readable_size(size)}): it cannot be linked safely")
    with temporary.folder.create(temporary.name, 0o600) as mine, step(progress, f"copy {source.name}", size) as advance:
        files.copy_open(file, mine, temporary.path, advance)
    return "copy"


def _clone(file: BinaryIO, temporary: Entry) -> bool:
    try:
        with temporary.folder.create(temporary.name, 0o600) as mine:
            fcntl.ioctl(mine.fileno(), _FICLONE, file.fileno())
    except OSError:  # on another file system, or not supported
        return False
    return True


def _is_ours_alone(file: BinaryIO) -> bool:
    """Return whether no other user can write the file, and no process has it open for writing."""
    found = os.fstat(file.fileno())
    ours = found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & _WRITABLE_BY_OTHERS
    return ours and not _is_open_for_writing(file)


def _is_open_for_writing(file: BinaryIO) -> bool:
    """Return whether a process on this machine has it open for writing (fcntl(2): F_SETLEASE then refuses F_RDLCK)."""
    try:
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # otherwise the file system has no leases: owner and mode decide
    return False


def _link(file: BinaryIO, source: Path, temporary: Entry) -> bool:
    """Hard-link the file; False if that is impossible, or if the path has become another file."""
    try:
        temporary.folder.bring(source.resolve(), temporary.name)
    except OSError:
        return False
    if os.path.samestat(temporary.folder.stat(temporary.name), os.fstat(file.fileno())):
        return True
    temporary.remove()
    return False


def _make_read_only(temporary: Entry, before: os.stat_result, way: str) -> None:
    """Make the file read-only, and check one last time that it is the file that was hashed."""
    with temporary.folder.reading(temporary.name) as descriptor:
        modes.set_mode(descriptor, temporary.folder.masked(_READ_ONLY), asked=_READ_ONLY)
        os.fsync(descriptor)
        found = os.fstat(descriptor)
    same = (found.st_ino, found.st_mtime_ns, found.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    names = 2 if way == "link" else 1
    folder = temporary.folder
    if not same or found.st_nlink > names or not is_own(found.st_uid, folder.path, dir_fd=folder.descriptor):
        raise IntegrityFailure(
            "the file changed while it was adopted",
            why="another process writes it or has linked it",
            fix="adopt it again when no process writes it",
        )


def _known_as(store: Store, image: StoredImage) -> StoredImage | None:
    """Return the recorded image if this NAME:TAG already came from a registry, or None.

    Raises UsageError if NAME:TAG is a different image. Tags of registries other than the configured one do not count.
    """
    known = store.own(image.recipe).unqualified(store.registry).get(image.tag)
    if known is None or not known.registry:
        return None
    if known.sif_digest != image.sif_digest:
        raise UsageError(
            f"{image.recipe}:{image.tag} is already another image",
            why=f"it was pulled from {known.registry}",
            fix=f"choose another tag: --as {image.recipe}:TAG",
        )
    return known

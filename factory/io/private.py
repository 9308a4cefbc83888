"""Private files, which no other user may have written or put there: partial downloads, leases, records."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure
from factory.io import modes
from factory.io.files import NO_RIGHT, explained, looked_up
from factory.io.owners import is_own

_PIECE = 128 * 1024  # bytes


@contextlib.contextmanager
def open_for_update(path: Path, *, dir_fd: int | None = None) -> Iterator[FileIO]:
    """Open a private file for reading and writing, unbuffered, at its start. It is created if it is missing.

    dir_fd: an open descriptor of path's folder (factory.io.below), or None to resolve the path. Raises IntegrityFailure
    if something else is in its place: a symbolic link, a file with a second name, or another user's file.
    """
    with explained(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            _make_writable(path, dir_fd)
            descriptor = os.open(looked_up(path, dir_fd), flags, 0o600, dir_fd=dir_fd)
        except OSError as error:
            if error.errno == errno.ELOOP or (error.errno in NO_RIGHT and not _is_ours(path, dir_fd)):
                raise planted(path, dir_fd=dir_fd) from error
            raise
        if not is_private(os.fstat(descriptor), path.parent, dir_fd=dir_fd):
            os.close(descriptor)
            raise planted(path, dir_fd=dir_fd)
        with FileIO(descriptor, "r+") as file:
            yield file


def write_all(file: FileIO, block: bytes) -> None:
    """Write a whole block to an unbuffered file. A single write may take less, for example on a nearly full disk.

    Small pieces were measured to be faster: the kernel needs fewer free pages at a time.
    """
    left = memoryview(block)
    while left:
        left = left[file.write(left[:_PIECE]) :]


def start_writing(file: FileIO, start: int, size: int) -> None:
    """Ask the kernel to start writing these bytes to disk, so that a later fsync takes less time.

    On Linux, POSIX_FADV_DONTNEED does that (posix_fadvise(2)). Elsewhere this has no effect.
    """
    with contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_DONTNEED)


def uncache(file: FileIO, size: int) -> None:
    """Drop the file's first size bytes from the page cache, if they are on disk (posix_fadvise(2)).

    Otherwise gigabytes that nobody reads soon would displace other users' pages.
    """
    with contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)


def private_size(path: Path, *, dir_fd: int | None = None) -> int:
    """Return the size of a private file. Raises IntegrityFailure if something else is in its place."""
    found = _lstat(path, dir_fd)
    if not is_private(found, path.parent, dir_fd=dir_fd):
        raise planted(path, dir_fd=dir_fd)
    return found.st_size


def _lstat(path: Path, dir_fd: int | None) -> os.stat_result:
    return os.stat(looked_up(path, dir_fd), dir_fd=dir_fd, follow_symlinks=False)


def is_private(found: os.stat_result, folder: Path, *, dir_fd: int | None = None) -> bool:
    """Return whether a file in a folder is a regular one of this user's, with no second name."""
    plain = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1  # 0 where links are not counted
    return plain and is_own(found.st_uid, folder, dir_fd=dir_fd)


def _make_writable(path: Path, dir_fd: int | None) -> None:
    """Make a private file writable again, which a run that died before its rename has left read-only."""
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(looked_up(path, dir_fd), flags, dir_fd=dir_fd)
        try:
            if is_private(os.fstat(descriptor), path.parent, dir_fd=dir_fd):
                modes.set_mode(descriptor, 0o600)
        finally:
            os.close(descriptor)


def _is_ours(path: Path, dir_fd: int | None) -> bool:
    """Return False only for an existing file of another user."""
    try:
        return is_own(_lstat(path, dir_fd).st_uid, path.parent, dir_fd=dir_fd)
    except OSError:
        return True


def planted(path: Path, *, dir_fd: int | None = None) -> FactoryError:
    """Return the error for a link, or another user's file, in the place of a private file."""
    try:
        found = _lstat(path, dir_fd)
        owner = f"it belongs to user id {found.st_uid}"
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file that others can reach"
    except OSError:
        owner, kind = "it has been removed since", "a link"
    return IntegrityFailure(
        f"{path} is {kind}, refused", why=owner, fix="find out who made it, remove it, then try again"
    )

"""Safe reading of untrusted files: regular files only, up to a size limit.

An untrusted name may be a pipe that never delivers, a device, a link to a private key, or ten gigabytes. So opening
never blocks, links are followed only on request, and reads are bounded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from factory.errors import IntegrityFailure
from factory.io import files
from factory.io.progress import Advance, ignore
from factory.oci.digest import Digest

_LINK = "a symbolic link"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, _LINK),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotPlainError(IntegrityFailure):
    """A path is not a regular file, or the file is too large.

    how: the message without the path, such as ``is a pipe, not a regular file``, for callers that name the file
    differently.
    """

    def __init__(self, path: Path, how: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(f"{path} {how}", why=why, fix=fix)
        self.how = how


def open_plain(path: Path, *, dir_fd: int | None = None, follow: bool = False) -> int:
    """Open a regular file for reading and return the descriptor, which the caller must close.

    dir_fd: an open descriptor of path's folder (factory.io.below), or None to resolve the path. follow: follow links,
    for a user's own files. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    name = files.looked_up(path, dir_fd)
    # Checked before opening, because opening some devices has side effects. A missing file is left to open(), because
    # a network file system may answer stat from its cache.
    with contextlib.suppress(FileNotFoundError):
        _require_plain(path, os.stat(name, dir_fd=dir_fd, follow_symlinks=follow))
    try:
        descriptor = os.open(name, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:  # created since the check
            raise _not_plain(path, _LINK) from error
        if error.errno == errno.ENXIO:
            raise _not_plain(path, "a socket") from error
        raise
    try:
        _require_plain(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def opened(path: Path, *, dir_fd: int | None = None, follow: bool = False) -> Iterator[int]:
    """Open a file like ``open_plain``, and close it when the block ends."""
    descriptor = open_plain(path, dir_fd=dir_fd, follow=follow)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reading(path: Path, *, follow: bool = False) -> Iterator[BinaryIO]:
    """Open a file like ``open_plain``, as a file object."""
    with os.fdopen(open_plain(path, follow=follow), "rb") as file:
        yield file


def read_plain(path: Path, limit: int, *, dir_fd: int | None = None, follow: bool = False) -> bytes:
    """Return the whole content of a regular file of at most limit bytes. A longer file is an error.

    dir_fd, follow: as for ``open_plain``. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    with opened(path, dir_fd=dir_fd, follow=follow) as descriptor:
        # The size alone is not enough: files in /proc report none, and a file may grow.
        if os.fstat(descriptor).st_size <= limit and len(content := _first(descriptor, limit + 1)) <= limit:
            return content
    raise NotPlainError(path, f"is larger than {files.readable_size(limit)}", fix="check that file")


def read_start(path: Path, limit: int, *, dir_fd: int | None = None) -> tuple[bytes, float]:
    """Return the first limit bytes of a regular file, and its modification time in seconds.

    dir_fd: as for ``open_plain``. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    with opened(path, dir_fd=dir_fd) as descriptor:
        return _first(descriptor, limit), os.fstat(descriptor).st_mtime


def blocks_of(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file of any size from offset on, in blocks. Raises like ``open_plain``."""
    with opened(path) as descriptor:
        while block := os.pread(descriptor, files.BLOCK, offset):
            offset += len(block)
            yield block


def digest_of(path: Path, advance: Advance = ignore) -> tuple[Digest, int]:
    """Return the SHA-256 digest and the size in bytes of a file of any size. Raises like ``open_plain``."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and `path` and `exec` hash nothing

    hasher = hashlib.sha256()
    size = 0
    for block in blocks_of(path):
        hasher.update(block)
        size += len(block)
        advance(len(block))
    return Digest("sha256", hasher.hexdigest()), size


def copy_file(
    source: Path, destination: Path, mode: int = 0o644, *, exact: bool = False, advance: Advance = ignore
) -> None:
    """Copy a file to a new name, durably, sharing blocks if the file system can.

    Raises like ``open_plain`` and factory.io.files.create, which describes mode and exact.
    """
    with reading(source) as reader, files.create(destination, mode, exact=exact) as writer:
        files.copy_open(reader, writer, destination, advance)


def _first(descriptor: int, limit: int) -> bytes:
    """Read at most limit bytes."""
    content = bytearray()
    while len(content) < limit and (block := os.read(descriptor, min(files.BLOCK, limit - len(content)))):
        content += block
    return bytes(content)


def _require_plain(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for fits, name in _KINDS if fits(found.st_mode)), "a device")
        raise _not_plain(path, kind, f"it belongs to user id {found.st_uid}")


def _not_plain(path: Path, kind: str, why: str = "it was created just now") -> NotPlainError:
    fix = "find out who made it, remove it, then try again"
    return NotPlainError(path, f"is {kind}, not a regular file", why=why, fix=fix)

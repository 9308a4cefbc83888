"""Files that somebody else wrote, or could have put there: ordinary ones only, and never more than a limit.

A name may stand for anything: a pipe that never says a word, a device, a link to a private key, ten gigabytes. What is
opened here is not waited for, not followed unless the caller says so, and not read to an end that may never come.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from factory.errors import IntegrityFailure
from factory.io import files
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
    """Something else than an ordinary file of a sensible size.

    how: what goes on after the file's name, for who names it otherwise: ``is a pipe, not an ordinary file``.
    """

    def __init__(self, path: Path, how: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(f"{path} {how}", why=why, fix=fix)
        self.how = how


def open_plain(path: Path, *, dir_fd: int | None = None, follow: bool = False) -> int:
    """The descriptor of an ordinary file, opened for reading; whoever asks closes it.

    dir_fd: path's folder, open (factory.io.below); None: it is looked up. follow: for a file of the user's own, of
    which people keep links. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    name = files.looked_up(path, dir_fd)
    # Looked at before it is opened: opening some devices does something. Whether it is there, only opening it tells:
    # for that a network file system asks its server.
    with contextlib.suppress(FileNotFoundError):
        _require_plain(path, os.stat(name, dir_fd=dir_fd, follow_symlinks=follow))
    try:
        descriptor = os.open(name, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:  # put there just now
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
    """As ``open_plain``, as long as the block runs."""
    descriptor = open_plain(path, dir_fd=dir_fd, follow=follow)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reading(path: Path, *, follow: bool = False) -> Iterator[BinaryIO]:
    """As ``open_plain``, as a file object."""
    with os.fdopen(open_plain(path, follow=follow), "rb") as file:
        yield file


def read_plain(path: Path, limit: int, *, dir_fd: int | None = None, follow: bool = False) -> bytes:
    """All of an ordinary file that has at most limit bytes, and never a part of a longer one.

    dir_fd, follow: as ``open_plain`` takes them. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    with opened(path, dir_fd=dir_fd, follow=follow) as descriptor:
        # A file may tell no size, as those in /proc, and one that grows meanwhile ends at the limit, too.
        if os.fstat(descriptor).st_size <= limit and len(content := _first(descriptor, limit + 1)) <= limit:
            return content
    raise NotPlainError(path, f"has more than {files.readable_size(limit)}", fix="look into that file")


def read_start(path: Path, limit: int, *, dir_fd: int | None = None) -> tuple[bytes, float]:
    """The first limit bytes of an ordinary file, and when it was written (seconds, the file's own time).

    dir_fd: as ``open_plain`` takes it. Raises NotPlainError, FileNotFoundError, and any other OSError.
    """
    with opened(path, dir_fd=dir_fd) as descriptor:
        return _first(descriptor, limit), os.fstat(descriptor).st_mtime


def blocks_of(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The bytes of a file of any size from offset on, in blocks. Raises as ``open_plain`` does."""
    with opened(path) as descriptor:
        while block := os.pread(descriptor, files.BLOCK, offset):
            offset += len(block)
            yield block


def digest_of(path: Path) -> tuple[Digest, int]:
    """The SHA-256 digest and the size in bytes of a file of any size. Raises as ``open_plain`` does."""
    hasher = hashlib.sha256()
    size = 0
    for block in blocks_of(path):
        hasher.update(block)
        size += len(block)
    return Digest("sha256", hasher.hexdigest()), size


def copy_file(source: Path, destination: Path, mode: int = 0o644) -> None:
    """Copy a file to a new name, durable when this returns; shares blocks where the file system can.

    Raises as ``open_plain`` does, and as factory.io.files.create.
    """
    with reading(source) as reader, files.create(destination, mode) as writer:
        files.copy_open(reader, writer, destination)


def _first(descriptor: int, limit: int) -> bytes:
    """At most limit bytes."""
    content = bytearray()
    while len(content) < limit and (block := os.read(descriptor, min(files.BLOCK, limit - len(content)))):
        content += block
    return bytes(content)


def _require_plain(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for fits, name in _KINDS if fits(found.st_mode)), "a device")
        raise _not_plain(path, kind, f"it belongs to user id {found.st_uid}")


def _not_plain(path: Path, kind: str, why: str = "it was put there just now") -> NotPlainError:
    fix = "remove it after finding out who made it, then try again"
    return NotPlainError(path, f"is {kind}, not an ordinary file", why=why, fix=fix)

"""Files that somebody else wrote, such as those of a recipe's folder: ordinary ones only, and never more than a limit.

A name may stand for anything: a pipe that never says a word, a device, a link to a private key, ten gigabytes. What is
opened here is not waited for, not followed, and not read to an end that may never come.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from factory.digest import Digest
from factory.io.files import digest_of_open, readable_size

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class NotPlainError(ValueError):
    """Something else than an ordinary file of a sensible size. The text goes on after its name: ``is a pipe``."""


def read_plain(path: Path, limit: int) -> bytes:
    """A file's content, at most limit bytes. Raises NotPlainError, and OSError where it cannot be read."""
    with _opened(path) as descriptor:
        if os.fstat(descriptor).st_size > limit:
            raise _too_large(limit)
        blocks, left = [], limit + 1  # a file that grows meanwhile ends here, too
        while left and (block := os.read(descriptor, left)):
            blocks.append(block)
            left -= len(block)
    if not left:
        raise _too_large(limit)
    return b"".join(blocks)


def digest_of_plain(path: Path) -> Digest:
    """The SHA-256 digest of a file of any size. Raises NotPlainError, and OSError where it cannot be read."""
    with _opened(path) as descriptor:
        return digest_of_open(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    _require_plain(path.lstat().st_mode)  # before it is opened: opening some devices does something
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPlainError("is a link, not an ordinary file") from error
        raise
    try:
        _require_plain(os.fstat(descriptor).st_mode)
        yield descriptor
    finally:
        os.close(descriptor)


def _require_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for fits, name in _KINDS if fits(mode)), "a device")
        raise NotPlainError(f"is {kind}, not an ordinary file")


def _too_large(limit: int) -> NotPlainError:
    return NotPlainError(f"has more than {readable_size(limit)}")

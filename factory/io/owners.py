"""File systems that map owners: a file that this user creates belongs to somebody else there.

NFS does that with root_squash and all_squash, CIFS with uid=, and sshfs without idmap. Such a file looks as if another
user had planted it. A test file shows the difference: it is created under a new random name (O_EXCL) and looked at
through its descriptor, so it can only be this user's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def mapped_owner(folder: Path, *, dir_fd: int | None = None) -> int | None:
    """Return the user id of this user's new files in a folder, if it is not this user's own; otherwise None.

    Creates a file and removes it; None as well if that is not allowed. dir_fd: the folder, open (factory.io.below).
    """
    name = f".owner.{os.getpid()}.{os.urandom(6).hex()}"
    place = folder / name if dir_fd is None else name
    try:
        descriptor = os.open(place, _NEW, 0o600, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        owner = os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(place, dir_fd=dir_fd)
    return None if owner == os.geteuid() else owner


def is_own(owner: int, folder: Path, *, dir_fd: int | None = None) -> bool:
    """Return whether a file in a folder that belongs to this user id can be one of this user's."""
    return owner == os.geteuid() or owner == mapped_owner(folder, dir_fd=dir_fd)

"""Read a file that may name programs, if only this user, root, and trusted owners can have put it there.

The owner of a link or of a folder on the path controls where the path leads. So every step is checked, including links
themselves, and opened relative to the one before, so that the checked file is the one that is read (openat(2),
O_NOFOLLOW).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from factory.errors import UsageError
from factory.io.rights import group_writes, has_list, is_unmapped

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS = 40  # the kernel's limit


class ForeignError(UsageError):
    """An untrusted user could have put the file there."""


def read(path: Path, limit: int, owners: Collection[int] = ()) -> bytes:
    """Return the content of a regular file of at most limit bytes, by its absolute path.

    owners: IDs of trusted users besides this one and root. Raises ForeignError, and OSError for a file that is missing,
    not regular, too large, or not readable.
    """
    trusted = {0, os.geteuid(), *owners}
    descriptor, name, links = os.open("/", _STEP), "/", 0
    try:
        public = _check_folder(descriptor, name, trusted, public=False)
        waiting = deque(path.parts[1:])
        while waiting:
            part = waiting.popleft()
            place = os.path.normpath(os.path.join(name, part))  # noqa: PTH118 - Path keeps ..
            step = os.open(part, _STEP, dir_fd=descriptor)
            try:
                found = os.fstat(step)
                if stat.S_ISDIR(found.st_mode):
                    public = _check_folder(step, place, trusted, public=public)
                    os.dup2(step, descriptor, inheritable=False)
                    name = place
                    continue
                _check_entry(found, place, trusted, step)
                if not stat.S_ISLNK(found.st_mode):
                    if waiting:
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
                    return _content(descriptor, part, found, limit)
                target = PurePosixPath(os.readlink("", dir_fd=step))
            finally:
                os.close(step)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            waiting.extendleft(reversed(target.parts))  # an absolute target starts with "/", opened as such
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        os.close(descriptor)


def _check_folder(descriptor: int, name: str, trusted: Collection[int], *, public: bool) -> bool:
    """Raise ForeignError if untrusted users can replace the folder's entries. Return whether anyone may add entries.

    public: whether anyone may add entries to the parent. Then only a trusted owner shows that this folder was not
    planted. In a folder shared with a group of this user, members may add files, so each file's owner is checked.
    """
    found = os.fstat(descriptor)
    ours = _is_our_groups(found, descriptor)
    if found.st_uid not in trusted and (public or not (ours or is_unmapped(found.st_uid))):
        raise ForeignError(f"{name} belongs to another user")
    everybody = bool(found.st_mode & stat.S_IWOTH)
    if everybody and not found.st_mode & stat.S_ISVTX:
        raise ForeignError(f"anyone can replace the files in {name}", fix=f"chmod o-w {name}")
    if group_writes(found, _opened(descriptor)) and not found.st_mode & stat.S_ISVTX and not ours:
        raise ForeignError(f"members of another group can replace the files in {name}", fix=f"chmod g-w {name}")
    return everybody


def _check_entry(found: os.stat_result, name: str, trusted: Collection[int], descriptor: int) -> None:
    """Raise ForeignError for a file that others can write to or a link that others own; OSError for anything else."""
    if found.st_uid not in trusted:
        raise ForeignError(f"{name} belongs to another user")
    if stat.S_ISLNK(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    if found.st_mode & stat.S_IWOTH:
        raise ForeignError(f"anyone can write to {name}", fix=f"chmod o-w {name}")
    if group_writes(found, _opened(descriptor)):
        raise ForeignError(f"a group can write to {name}", fix=f"chmod g-w {name}")


def _is_our_groups(found: os.stat_result, descriptor: int) -> bool:
    """Return whether a folder is shared with a group of this user, so that its owner is a trusted group member."""
    in_it = bool(found.st_mode & stat.S_IWGRP) and found.st_gid in (os.getegid(), *os.getgroups())
    return in_it and not has_list(_opened(descriptor))


def _opened(descriptor: int) -> str:
    """Return a path to an open file: extended attributes cannot be read through an O_PATH descriptor."""
    return f"/proc/self/fd/{descriptor}"


def _content(folder: int, name: str, checked: os.stat_result, limit: int) -> bytes:
    """Read the file that was checked. If it was just replaced by a pipe, O_NONBLOCK keeps this from blocking."""
    descriptor = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not os.path.samestat(os.fstat(descriptor), checked):
            raise OSError(errno.ESTALE, "it was replaced while it was being read")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit // 1024} KiB")
    return content

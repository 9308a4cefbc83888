"""Read a file that may name programs: only where nobody but this user, root and trusted owners can have put it.

Whoever owns a link, or a folder on the way, decides what its name leads to. So each step is looked at, links themselves
included, and each is opened below the one before: what was checked is what is read (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from factory.errors import UsageError

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS = 40  # what Linux follows before it gives up
_OVERFLOW = Path("/proc/sys/fs/overflowuid")  # the id of everybody whose real one is not known (user_namespaces(7))
_ID_MAP = Path("/proc/self/uid_map")


class ForeignError(UsageError):
    """Somebody else could have put the file there."""


def read(path: Path, limit: int, owners: Collection[int] = ()) -> bytes:
    """The content of an ordinary file of at most limit bytes; path is absolute.

    owners: users, by their ids, who are trusted besides this one and root. Raises ForeignError, and OSError for a file
    that is absent, not ordinary, too large, or that may not be read.
    """
    trusted = {0, os.geteuid(), *owners}
    descriptor, name, links = os.open("/", _STEP), "/", 0
    try:
        public = _check_folder(os.fstat(descriptor), name, trusted, public=False)
        waiting = deque(path.parts[1:])
        while waiting:
            part = waiting.popleft()
            place = os.path.normpath(os.path.join(name, part))  # noqa: PTH118 - Path keeps ..
            step = os.open(part, _STEP, dir_fd=descriptor)
            try:
                found = os.fstat(step)
                if stat.S_ISDIR(found.st_mode):
                    public = _check_folder(found, place, trusted, public=public)
                    os.dup2(step, descriptor, inheritable=False)
                    name = place
                    continue
                _check_entry(found, place, trusted)
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
            waiting.extendleft(reversed(target.parts))  # an absolute one begins with /, which is opened as such
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        os.close(descriptor)


def _check_folder(found: os.stat_result, name: str, trusted: Collection[int], *, public: bool) -> bool:
    """Raise ForeignError where others can replace what the folder holds; True when anybody may add to it.

    public: whether anybody may add to the folder above. Only whose this one is tells then that it was not put there.
    """
    given = not public and (_is_our_groups(found) or is_unmapped(found.st_uid))
    if found.st_uid not in trusted and not given:
        raise ForeignError(f"{name} belongs to another user")
    everybody = bool(found.st_mode & stat.S_IWOTH)
    if everybody and not found.st_mode & stat.S_ISVTX:
        raise ForeignError(f"everybody can replace what is in {name}", fix=f"chmod o-w {name}")
    return everybody


def _check_entry(found: os.stat_result, name: str, trusted: Collection[int]) -> None:
    """Raise ForeignError for a file that others can write, and for a link of theirs; OSError for what is neither."""
    if found.st_uid not in trusted:
        raise ForeignError(f"{name} belongs to another user")
    if stat.S_ISLNK(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no ordinary file", name)
    if found.st_mode & stat.S_IWOTH:
        raise ForeignError(f"everybody can write to {name}", fix=f"chmod o-w {name}")


def _is_our_groups(found: os.stat_result) -> bool:
    """Whether a folder is one where a group of this user's works together: its owner is somebody they work with."""
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid in (os.getegid(), *os.getgroups())


def is_unmapped(user: int) -> bool:
    """Whether this is how root looks in a user namespace without it, as in containers of an ordinary user."""
    try:
        unknown = int(_OVERFLOW.read_text(encoding="ascii"))
        has_root = _ID_MAP.read_text(encoding="ascii").split()[1] == "0"
    except (OSError, ValueError, IndexError):
        return False
    return user == unknown and not has_root


def _content(folder: int, name: str, checked: os.stat_result, limit: int) -> bytes:
    """Read the file that was looked at. Were it replaced by a FIFO just now, nothing would wait for a writer."""
    descriptor = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not os.path.samestat(os.fstat(descriptor), checked):
            raise OSError(errno.ESTALE, "it was replaced meanwhile")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit // 1024} KiB")
    return content

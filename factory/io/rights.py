"""What mode bits mean: who else than the owner may write a file or folder, and whose it is when that is not known."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from factory.io.owners import mapped_owner

_OVERFLOW = Path("/proc/sys/fs/overflowuid")  # the id of everybody whose real one is not known (user_namespaces(7))
_ID_MAP = Path("/proc/self/uid_map")


def group_writes(found: os.stat_result, path: Path | str) -> bool:
    """Whether others than its owner may write a file or folder through the rights of its group.

    Not where the group is root's, or, by its number, the owner's own. With an access list the bits of the group are
    the most that anybody on the list may do, whatever the group is (acl(5)); lists of NFSv4 are not read.
    """
    if not found.st_mode & stat.S_IWGRP:
        return False
    return found.st_gid not in (0, found.st_uid) or has_list(path)


def has_list(path: Path | str) -> bool:
    """Whether an access list of POSIX says more than the mode bits."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


def is_unmapped(user: int) -> bool:
    """Whether this is how root looks in a user namespace without it, as in containers of an ordinary user."""
    try:
        unknown = int(_OVERFLOW.read_text(encoding="ascii"))
        has_root = _ID_MAP.read_text(encoding="ascii").split()[1] == "0"
    except (OSError, ValueError, IndexError):
        return False
    return user == unknown and not has_root


def whose(path: Path) -> str:
    """Why what is at path may be what another user put there; '' where only this user and root could have.

    Folders above count as well, and are not looked at here. Raises OSError, FileNotFoundError among them.
    """
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid()) and not is_unmapped(found.st_uid):
        mapped = found.st_uid == mapped_owner(path.parent)
        return f"it belongs to user id {found.st_uid}" + (", to whom its file system maps you" if mapped else "")
    if stat.S_ISLNK(found.st_mode):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "anybody may write it"
    return "its group may write it" if group_writes(found, path) else ""

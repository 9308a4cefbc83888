"""What mode bits, access lists, and owners say about who may write to a file or folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from factory.io.owners import mapped_owner

_OVERFLOW = Path("/proc/sys/fs/overflowuid")  # shown for every ID without a mapping (user_namespaces(7))
_ID_MAP = Path("/proc/self/uid_map")


def group_writes(found: os.stat_result, path: Path | str) -> bool:
    """Return whether group permissions let anyone but the owner write to a file or folder.

    Root's group, and a group with the owner's number, do not count. With a POSIX access list, the group bits are the
    upper limit for everyone on the list, so then every group counts (acl(5)). NFSv4 lists are not read.
    """
    if not found.st_mode & stat.S_IWGRP:
        return False
    return found.st_gid not in (0, found.st_uid) or has_list(path)


def has_list(path: Path | str) -> bool:
    """Return whether there is a POSIX access list beyond the mode bits."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


def is_unmapped(user: int) -> bool:
    """Return whether a user ID may be the host's root, seen from a user namespace that does not map root.

    That is the case in containers of an ordinary user.
    """
    try:
        unknown = int(_OVERFLOW.read_text(encoding="ascii"))
        has_root = _ID_MAP.read_text(encoding="ascii").split()[1] == "0"
    except (OSError, ValueError, IndexError):
        return False
    return user == unknown and not has_root


def whose(path: Path) -> str:
    """Return why another user may have put a file at path; '' if only this user and root could.

    Parent folders matter as well but are not checked here. Raises OSError, including FileNotFoundError.
    """
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid()) and not is_unmapped(found.st_uid):
        mapped = found.st_uid == mapped_owner(path.parent)
        return f"it belongs to user id {found.st_uid}" + (", to whom its file system maps you" if mapped else "")
    if stat.S_ISLNK(found.st_mode):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "anyone may write to it"
    return "its group may write to it" if group_writes(found, path) else ""

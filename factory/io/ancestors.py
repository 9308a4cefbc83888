"""Who can change what a path refers to: anyone who can rename or replace a component of it.

A file is only as trustworthy as the folders above it. The owner of a folder on the path, and anyone who may write to
it, can replace its entries; this includes folders reached through a symbolic link. With the sticky bit set, only the
owners of the entry and of the folder can (path_resolution(7), unlink(2)).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from factory.errors import PlaceUnusable
from factory.io.below import make_way
from factory.io.owners import mapped_owner
from factory.io.rights import group_writes, is_unmapped

_MOST_LINKS = 40  # the kernel's limit


class Step(NamedTuple):
    """One step of a path lookup: an entry (place), its folder, and the lstat results of both."""

    folder: Path
    above: os.stat_result
    place: Path
    found: os.stat_result


def way_to(path: Path) -> Iterator[Step]:
    """Yield each step of a path lookup in order, following links. Ends at the first component that does not exist."""
    folder = Path("/")
    above = folder.lstat()
    left = [*reversed(path.absolute().parts[1:])]
    links = 0
    while left:
        name = left.pop()
        place = folder.parent if name == ".." else folder / name
        try:
            found = place.lstat()
            target = place.readlink() if stat.S_ISLNK(found.st_mode) else None
        except OSError:
            return
        if name != "..":
            yield Step(folder, above, place, found)
        if target is not None:
            links += 1
            left += [part for part in reversed(target.parts) if part != "/"]
            folder = Path("/") if target.is_absolute() else folder
            above = folder.lstat()
            if links > _MOST_LINKS:
                return
        else:
            folder, above = place, found


def doubt(
    path: Path,
    *,
    trusted: Callable[[int], bool],
    owner: Callable[[os.stat_result], bool] = lambda _: False,
    group: Callable[[os.stat_result], bool] = lambda _: False,
    maker: Callable[[os.stat_result, os.stat_result], bool] = lambda _, __: False,
) -> str:
    """Return why an untrusted user could redirect a path, or '' if none could.

    trusted: whether a user ID is trusted. owner: whether a folder with an untrusted owner is safe anyway. group:
    whether a folder that its group may write is safe anyway. maker: given the lstat results of a folder that others
    may write and of an entry with an untrusted owner, whether the entry is safe anyway.
    """
    for folder, above, place, found in way_to(path):
        sticky = above.st_mode & stat.S_ISVTX
        by_group = group_writes(above, folder)
        if above.st_mode & stat.S_IWOTH and not sticky:
            return f"anyone can replace {place}, because anyone may write to {folder}"
        if by_group and not sticky and not group(above):
            return f"the group of {folder} may write to it, and can replace {place}"
        shared = above.st_mode & stat.S_IWOTH or by_group
        if shared and not trusted(found.st_uid) and not maker(above, found):
            return f"{place} belongs to {name_of(found.st_uid)}, who may have made it: others can write to {folder}"
        if stat.S_ISDIR(found.st_mode) and not trusted(found.st_uid) and not owner(found):
            return f"{place} belongs to {name_of(found.st_uid)}, who is not trusted"
    return ""


def private_folder(path: Path, *, parents: bool = False) -> Path:
    """Return a folder that only this user can write to and nobody else can replace. It is created if it is missing.

    parents: create missing parent folders as well, for this user only. Raises PlaceUnusable if the path is anything
    else, or if a parent belongs to another user or is writable by others without the sticky bit.
    """
    if not parents and not path.parent.is_dir():
        raise PlaceUnusable(f"there is no folder {path.parent}", fix="create it, or name another one")
    why = _not_ours(path)
    if not why:
        make_way(path, 0o700)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            why = "it is not a folder that only you can write to: others could put files there"
    if why := why or _not_ours(path):
        mapped = _maps_owners(path)
        fix = "name a folder on another file system" if mapped else "remove it, or name another folder"
        raise PlaceUnusable(f"{path} is not safe to use", why=mapped or why, fix=fix)
    return path


def safe_folder(path: Path, fix: str) -> Path:
    """Return a folder where nobody else can replace this user's files, such as `/tmp` or a private folder.

    A missing folder is created for this user only. Raises PlaceUnusable, with this ``fix``, if it is not safe.
    """
    why = _not_ours(path) or _open_to_others(path)
    if not why:
        make_way(path, 0o700)
        why = _not_ours(path) or _open_to_others(path)
    if why:
        raise PlaceUnusable(f"{path} is not safe to use", why=_maps_owners(path) or why, fix=fix)
    return path


def _maps_owners(path: Path) -> str:
    """Return why no folder at path can be this user's alone if its file system maps owners; otherwise ''."""
    owner = mapped_owner(next(place for place in (path, *path.parents) if place.is_dir()))
    return f"its file system maps owners: your files belong to {name_of(owner)} there" if owner is not None else ""


def _not_ours(path: Path) -> str:
    return doubt(path, trusted=lambda user: user in (0, os.geteuid()), owner=lambda found: is_unmapped(found.st_uid))


def _open_to_others(path: Path) -> str:
    """Return why others can replace the entries of a folder; '' if they cannot, or if it does not exist."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "anyone may write to it, and can replace its files"
    return "its group may write to it, and can replace its files" if group_writes(found, path) else ""


def name_of(user: int) -> str:
    """Return a user's name for messages, or the ID of an unknown user."""
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user id {user}"

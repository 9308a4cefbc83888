"""Who decides what a path means: whoever can rename or replace something on the way to it.

A file is worth as much as the way to it. Each folder that is looked up, and each folder that holds a link on the way,
can be led elsewhere by its owner and by who may write it; where the sticky bit is set, by the owner of the entry only
(path_resolution(7), unlink(2)).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from factory.errors import PlaceUnusable
from factory.io.below import make_way
from factory.io.owners import mapped_owner
from factory.io.rights import group_writes, is_unmapped

_MOST_LINKS = 40  # as the kernel


class Step(NamedTuple):
    """One name that is looked up: place in folder, and what lstat says of both."""

    folder: Path
    above: os.stat_result
    place: Path
    found: os.stat_result


def way_to(path: Path) -> Iterator[Step]:
    """What is looked up for a path, in order, links and what they lead to included; it ends where nothing is there."""
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
    """Why somebody who is not trusted could make a path mean something else; '' when nobody could.

    trusted: whether a user is. owner: whether a folder is safe although its owner is not trusted. group: whether a
    folder is safe although its group may write it. maker: whether what lies in a folder that others may write (both
    as lstat sees them) is safe although its owner is not trusted.
    """
    for folder, above, place, found in way_to(path):
        sticky = above.st_mode & stat.S_ISVTX
        by_group = group_writes(above, folder)
        if above.st_mode & stat.S_IWOTH and not sticky:
            return f"anybody can replace {place}, since anybody may write {folder}"
        if by_group and not sticky and not group(above):
            return f"the group of {folder} may write it, and can replace {place}"
        shared = above.st_mode & stat.S_IWOTH or by_group
        if shared and not trusted(found.st_uid) and not maker(above, found):
            return f"{place} belongs to {name_of(found.st_uid)}, who may have made it: others can write {folder}"
        if stat.S_ISDIR(found.st_mode) and not trusted(found.st_uid) and not owner(found):
            return f"{place} belongs to {name_of(found.st_uid)}, who is not trusted"
    return ""


def private_folder(path: Path, *, parents: bool = False) -> Path:
    """A folder that only this user can use, and that nobody else can replace; made when it is not there.

    parents: make those above it as well, for this user only. Raises PlaceUnusable when it is anything else, or when a
    folder above it is another user's, or one that others may write without the sticky bit.
    """
    if not parents and not path.parent.is_dir():
        raise PlaceUnusable(f"{path.parent} is not there", why="it is no folder", fix="make it, or name another one")
    why = _not_ours(path)
    if not why:
        make_way(path, 0o700)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            why = "it is not a folder of yours alone: others could put their files there"
    if why := why or _not_ours(path):
        mapped = _maps_owners(path)
        fix = "name a folder on another file system" if mapped else "remove it, or name another place"
        raise PlaceUnusable(f"{path} is not safe to use", why=mapped or why, fix=fix)
    return path


def safe_folder(path: Path, fix: str) -> Path:
    """A folder in which what this user makes can be replaced by nobody else: `/tmp` is one, and so is a private one.

    Made for this user only when it is not there. Raises PlaceUnusable, with fix as what to do, where it is not safe.
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
    """Why others can replace what lies in a folder; '' when they cannot, or when it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "anybody may write it, and can replace what lies there"
    return "its group may write it, and can replace what lies there" if group_writes(found, path) else ""


def name_of(user: int) -> str:
    """A user as people know them."""
    import pwd  # noqa: PLC0415 - only for messages

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user id {user}"

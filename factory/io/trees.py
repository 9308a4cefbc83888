"""Removal of folder trees of any depth and with any permissions, and the disk space that they take."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path


def remove_tree(path: Path) -> bool:
    """Remove a folder and its contents, including read-only folders. Return True if nothing is left.

    Subfolders are moved up to the top folder and emptied one by one. So stack depth, open files, and path lengths do
    not grow with the depth of the tree, which may be untrusted.
    """
    try:
        top = _open_folder(str(path), None)
    except OSError:
        return not os.path.lexists(path)
    try:
        numbers = itertools.count()
        while sum(_remove_below(top, name, numbers) for name in os.listdir(top)):  # noqa: PTH208 - of a descriptor
            pass  # repeat until a whole pass removes nothing, since subfolders move up
    except OSError:
        pass
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        path.rmdir()
    return not os.path.lexists(path)


def _open_folder(name: str, dir_fd: int | None) -> int:
    """Open a folder, not a link to one, and give its owner full permissions."""
    seen = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        with contextlib.suppress(OSError):
            Path(f"/proc/self/fd/{seen}").chmod(0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=seen)
    finally:
        os.close(seen)


def _remove_below(top: int, name: str, numbers: Iterator[int]) -> bool:
    """Remove an entry of top, and move its subfolders up into top. Return False if nothing changed."""
    if _unlinked(name, top):
        return True
    try:
        folder = _open_folder(name, top)
    except OSError:
        return False
    done = False
    try:
        for entry in os.listdir(folder):  # noqa: PTH208 - of a descriptor
            done |= _unlinked(entry, folder) or _brought_up(entry, folder, top, numbers)
    except OSError:
        pass
    finally:
        os.close(folder)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top)
        done = True
    return done


def _unlinked(name: str, folder: int) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def _brought_up(name: str, folder: int, top: int, numbers: Iterator[int]) -> bool:
    """Remove a folder if it is empty, else move it to a free name in top."""
    try:
        os.close(_open_folder(name, folder))  # for its permissions: moving a folder writes its ".." entry
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return True
        new = f".{next(numbers)}.{os.urandom(6).hex()}"
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=top)
    except OSError:
        return False
    return True


def disk_use(folder: Path) -> int:
    """Return the bytes that a folder's files take on disk, without those that this user cannot see."""
    seen: dict[tuple[int, int], int] = {}  # a file with several names counts once
    for place, below, names in os.walk(folder):
        for name in (*below, *names):
            with contextlib.suppress(OSError):
                found = Path(place, name).lstat()
                seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())

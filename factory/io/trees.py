"""Remove whole folders, whatever those who filled them have made of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def remove_tree(path: Path) -> bool:
    """Remove a folder and what it holds, read-only folders included; True when nothing of it is left.

    However deep it is, and whoever made it so: folders are brought up and emptied one by one. Neither the stack, nor
    open files, nor the length of a path grows with the depth.
    """
    try:
        top = _open_folder(str(path), None)
    except OSError:
        return not os.path.lexists(path)
    try:
        numbers = itertools.count()
        while sum(_remove_below(top, name, numbers) for name in os.listdir(top)):  # noqa: PTH208 - of a descriptor
            pass  # all of them each time: one after another comes up
    except OSError:
        pass
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        path.rmdir()
    return not os.path.lexists(path)


def _open_folder(name: str, dir_fd: int | None) -> int:
    """Open a folder itself, and give its owner all rights on it."""
    seen = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        with contextlib.suppress(OSError):
            Path(f"/proc/self/fd/{seen}").chmod(0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=seen)
    finally:
        os.close(seen)


def _remove_below(top: int, name: str, numbers: Iterator[int]) -> bool:
    """Remove what has this name in top; a folder's own folders come to lie in top. False when nothing was done."""
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
    """Remove an empty folder; rename another one to a name in top that is free."""
    try:
        os.close(_open_folder(name, folder))  # its rights: who moves a folder changes its ..
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return True
        new = f".{next(numbers)}.{secrets.token_hex(6)}"
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=top)
    except OSError:
        return False
    return True

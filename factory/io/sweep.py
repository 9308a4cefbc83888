"""Clearing a folder of temporary files that nobody will finish, when others may write beside it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path


def sweep(folder: Path, age: float) -> None:
    """Remove this user's own files in a folder that are older than age seconds, as far as that works.

    The folder is opened once, and never through a link: put in its place, one would have files removed elsewhere.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 - a Path is looked up again, and may be another by then
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                if ours and time.time() - found.st_mtime > age:
                    os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)

"""Removal of abandoned temporary files from a folder that others may write to."""

from __future__ import annotations

import contextlib
import os
import stat
import time

from factory.io.below import Folder


def sweep(folder: Folder, age: float) -> None:
    """Remove this user's files older than age seconds from a folder. Errors are ignored."""
    with contextlib.suppress(OSError):
        for name in folder.names():
            with contextlib.suppress(OSError):
                found = folder.stat(name)
                ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                if ours and time.time() - found.st_mtime > age:
                    folder.remove(name)

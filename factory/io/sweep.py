"""Clearing a folder of temporary files that nobody will finish, when others may write beside it."""

from __future__ import annotations

import contextlib
import os
import stat
import time

from factory.io.below import Folder


def sweep(folder: Folder, age: float) -> None:
    """Remove this user's own files in a folder that are older than age seconds, as far as that works."""
    with contextlib.suppress(OSError):
        for name in folder.names():
            with contextlib.suppress(OSError):
                found = folder.stat(name)
                ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                if ours and time.time() - found.st_mtime > age:
                    folder.remove(name)

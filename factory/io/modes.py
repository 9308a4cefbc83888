"""Mode bits of new files and folders: what the umask takes away, and file systems that have no modes of their own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from pathlib import Path

_OTHERS = 0o077  # the rights of group and others
_STATUS = Path("/proc/self/status")
_ASKING = threading.Lock()
_NO_MODES = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}  # vfat, exFAT, CIFS; mapped owners


def umask() -> int:
    """Return this process's umask without changing it, since other threads create files meanwhile.

    Linux 4.7 and later report it (proc_pid_status(5)). On older kernels it can only be asked for by setting it.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if found:
            return int(found[1], 8)
    with _ASKING:
        before = os.umask(_OTHERS)
        os.umask(before)
    return before


def masked(mode: int) -> int:
    """Return a mode without the rights that the umask takes from group and others. The owner keeps all rights."""
    return mode & ~(umask() & _OTHERS)


def set_mode(descriptor: int, mode: int, *, asked: int | None = None) -> None:
    """Set the mode of an open file. A file system without modes may refuse that.

    asked: the mode before the umask was applied, if it was. Raises OSError if the file must be private, and the file
    system refuses that while others may use the file.
    """
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        must_be_private = not (mode if asked is None else asked) & _OTHERS
        is_open = stat.S_IMODE(os.fstat(descriptor).st_mode) & _OTHERS
        if error.errno not in _NO_MODES or (must_be_private and is_open):
            raise

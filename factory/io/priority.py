"""The priority of this process for CPUs and disks."""

from __future__ import annotations

import contextlib
import ctypes
import os

_NICE = 10  # of 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # numbers of the system call (ioprio_set(2)), which the C library lacks
_THIS_PROCESS, _BEST_EFFORT, _LOWEST = 1, 2 << 13, 7


def lower() -> None:
    """Let other processes go first. Threads that are started later inherit it. Never fails: it is a courtesy."""
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) < _NICE:
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, _THIS_PROCESS, 0, _BEST_EFFORT | _LOWEST)

"""Work that goes on beside this process, and after it has become another program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NoReturn


def aside(work: Callable[[], None]) -> bool:
    """Do the work in a process of its own, which is nobody's child, and holds none of the standard streams.

    For a process that is about to exec: a program does not expect children that it has not started. The new process
    stays in this one's process group and control group, so SLURM ends it with the job's step. Call this while no other
    thread runs. Return False if the system allows no more processes.
    """
    try:
        child = os.fork()
    except OSError:
        return False
    if child == 0:
        _go_on(work)
    os.waitpid(child, 0)
    return True


def _go_on(work: Callable[[], None]) -> NoReturn:
    with contextlib.suppress(BaseException):
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            work()
    os._exit(0)

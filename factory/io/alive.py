"""Whether a process lives, and where its number counts (proc(5), pid_namespaces(7))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_ENDED = "ZX"  # zombies and dead processes; where nobody reaps orphans, they stay for ever


class Stat(NamedTuple):
    """Fields of /proc/PID/stat (proc_pid_stat(5)). started: in ticks since the machine did."""

    state: str
    group: int
    started: str

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self.state not in _ENDED


def stat_of(path: Path) -> Stat | None:
    """What a stat file says; None where it cannot be read. The program's name in it may hold anything, `)` included."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[2]), fields[19])


def start_time(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; '' when it may not be seen, None when it has ended.

    Number and start time together are used only once between two starts of a machine.
    """
    found = stat_of(Path(f"/proc/{pid}/stat"))
    if found is None:  # it has ended, or /proc hides other users' processes (hidepid)
        return "" if _exists(pid) else None
    return found.started if found.runs else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that large
        return False
    except PermissionError:
        return True
    return True


def boot() -> str:
    """What this start of the machine is called; '' on systems that do not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def namespace() -> str:
    """Where process numbers count: containers have their own; '' on systems that do not say."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""

"""Whether a process is running, and in which PID namespace (proc(5), pid_namespaces(7))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_ENDED = "ZX"  # zombies and dead processes; without a reaper for orphans they stay forever


class Stat(NamedTuple):
    """Fields of /proc/PID/stat (proc_pid_stat(5)). started: in clock ticks since boot."""

    state: str
    group: int
    started: str

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self.state not in _ENDED


def stat_of(path: Path) -> Stat | None:
    """Parse a stat file, or return None if it cannot be read. The program's name in it may contain a `)`."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[2]), fields[19])


def start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; '' if that is hidden, None if the process has ended.

    PID and start time together identify a process uniquely until the next reboot.
    """
    found = stat_of(Path(f"/proc/{pid}/stat"))
    if found is None:  # ended, or hidden by a /proc mounted with hidepid
        return "" if _exists(pid) else None
    return found.started if found.runs else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # OverflowError: no PID is that large
        return False
    except PermissionError:
        return True
    return True


def boot() -> str:
    """Return the kernel's boot ID, or '' if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def namespace() -> str:
    """Return this process's PID namespace, or '' if the system does not report it."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""

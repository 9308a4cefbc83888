"""How many CPUs this process may use: its affinity and its control groups (cgroups(7)), not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_THREADS_PER_CPU = 4  # of a Go program, roughly: running, blocked in system calls, and its own
_ROOT = Path("/")


def allowed_cpus(root: Path = _ROOT) -> int:
    """Return the number of CPUs for thread pools, at least 1. A quota of 1.5 CPUs counts as 2.

    A limit on processes (pids.max) counts, too: each thread is one of them. root: of the file system, for tests.
    """
    cpus = len(os.sched_getaffinity(0))
    for folder in _groups(root):
        cpus = min([cpus, *_quota(folder), *_threads(folder)])
    return max(cpus, 1)


def is_limited() -> bool:
    """Return whether this process may use fewer CPUs than programs see on this machine."""
    return allowed_cpus() < (os.cpu_count() or 1)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and those above, whose limits apply as well."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for top in {"": ("", "unified"), "cpu,cpuacct": (controllers, "cpu")}.get(controllers, (controllers,)):
            base = root / "sys/fs/cgroup" / top
            group = base / path.lstrip("/")
            while True:
                yield group
                if group == base or base not in group.parents:
                    break
                group = group.parent


def _quota(folder: Path) -> Iterator[int]:
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # noqa: PLR2004 - quota, period
        yield -(-int(words[0]) // int(words[1]))


def _threads(folder: Path) -> Iterator[int]:
    most, now = _text(folder / "pids.max").strip(), _text(folder / "pids.current").strip()
    if most.isdigit() and now.isdigit():
        yield max(int(most) - int(now), 0) // _THREADS_PER_CPU


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

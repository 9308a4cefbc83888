"""Runs a command under the limits of a login node: few processes and threads, little memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = 512 << 20  # bytes
_GROUPS = Path("/sys/fs/cgroup")
# The shell has only commands of its own here: it may have no other process.
_SCRIPT = """
for group in $GROUPS_HERE; do echo $$ > "$group/cgroup.procs" || exit 97; done
[ -z "$PROCESSES" ] || ulimit -u "$PROCESSES" || exit 97
ulimit -v "$ADDRESSES" && umask 077 && unset GROUPS_HERE PROCESSES ADDRESSES && exec "$@"
"""


@contextmanager
def limited(processes: int, *, addresses: int | None = None) -> Iterator[list[str]]:
    """Yield what goes before a command. processes: with threads; addresses: bytes of address space.

    Root is limited by control groups, memory to ``MEMORY`` bytes; an ordinary user by RLIMIT_NPROC, which counts all
    processes of the user.
    """
    kind = "unlimited" if addresses is None else str(addresses // 1024)
    groups: list[Path] = []
    try:
        if os.geteuid() == 0:
            for controller, name, limit in (("pids", "pids.max", processes), ("memory", "limit_in_bytes", MEMORY)):
                place = _GROUPS / controller
                if not os.access(place / "cgroup.procs", os.W_OK):
                    pytest.skip(f"no control group of version 1 for {controller}, and root has no other limit")
                groups.append(place / f"singfactory-test-{os.getpid()}")
                groups[-1].mkdir()
                (groups[-1] / (name if controller == "pids" else f"memory.{name}")).write_text(str(limit))
        else:
            processes += sum(map(_threads_of, Path("/proc").glob("[0-9]*")))
        names = " ".join(map(str, groups))
        count = "" if groups else str(processes)
        setting = [f"GROUPS_HERE={names}", f"PROCESSES={count}", f"ADDRESSES={kind}"]
        yield ["env", *setting, "/bin/sh", "-c", _SCRIPT, "sh"]
    finally:
        for group in groups:
            group.rmdir()


def _threads_of(process: Path) -> int:
    try:
        return len(list((process / "task").iterdir())) if process.stat().st_uid == os.getuid() else 0
    except OSError:  # it has ended
        return 0


def peak(prefix: Sequence[str]) -> int:
    """Return the bytes of memory that commands with this prefix have used at most; 0 if nobody counts them."""
    groups = next(word for word in prefix if word.startswith("GROUPS_HERE=")).partition("=")[2].split()
    counter = next((Path(group, "memory.max_usage_in_bytes") for group in groups if "/memory/" in group), None)
    return int(counter.read_text()) if counter else 0


def allow_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system allow only so many more threads."""
    real, left = threading.Thread.start, iter(range(count))

    def start(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

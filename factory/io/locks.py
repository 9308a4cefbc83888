"""Locks between processes that also hold where ``flock`` is missing, blocks for ever, or lies.

A lock is a file that only its holder could create (O_EXCL, atomic on local disks, NFS ≥ 3 and Lustre). It
names host, process and a random token, and its holder refreshes its time. A lock whose holder is known to
be dead, or that nobody has refreshed for long, is taken over by renaming it away: only one process can.
What a lock protects stays correct without it (unique temporary, rename): a lock saves work, not data.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from factory.errors import RegistryFailure
from factory.io.files import explained, make_folder, remove_file
from factory.io.private import planted
from factory.io.progress import Progress

REFRESH = 5.0  # seconds between two signs of life of a holder
STALE = 60.0  # seconds without one after which a holder elsewhere counts as dead
_POLL = 0.2


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    user: int
    token: str
    processes: str = ""  # where the number counts: start of the machine, and namespace

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.user} on {self.host}"


@dataclass(frozen=True)
class Held:
    """A lock that is held under a token of its own.

    doubtful: who held it before was silent for long, and may wake up and go on working. alone: False where a dead
    holder's lock could not be removed, so that nobody is kept out.
    """

    token: str
    doubtful: bool = False
    alone: bool = True


@contextlib.contextmanager
def lock(path: Path, timeout: float, progress: Progress) -> Iterator[Held]:
    """Hold the lock while the block runs. Waits up to timeout seconds, with a notice that names the holder.

    Where a dead holder's lock may not be removed, it goes on without one. Raises RegistryFailure (try again) when the
    time is over and the holder is still alive.
    """
    make_folder(path.parent)
    mine = Holder(socket.gethostname(), os.getpid(), os.getuid(), secrets.token_hex(8), processes())
    held = _acquire(path, mine, timeout, progress)
    stop = threading.Event()
    beat = threading.Thread(target=_refresh, args=(path, mine, stop), daemon=True)
    try:
        beat.start()
        yield held
    finally:
        stop.set()
        if beat.ident is not None:
            beat.join()
        if _read(path) == mine:
            remove_file(path)


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock now; None when nobody does, or when its holder is known to be dead."""
    holder = _read(path)
    return None if holder is None or _dead(holder) else holder


def _acquire(path: Path, mine: Holder, timeout: float, progress: Progress) -> Held:
    """Take the lock when it is free, or its holder gives no sign of life any more."""
    doubtful = False
    deadline = time.monotonic() + timeout
    watched: tuple[Holder, int] | None = None
    since = time.monotonic()
    told = False
    while not _create(path, mine):
        holder = _read(path)
        if holder is None:
            time.sleep(_POLL / 10)
            continue
        seen = (holder, _stamp(path))
        if seen != watched:
            watched, since = seen, time.monotonic()
        dead, silent = _dead(holder), time.monotonic() - since > STALE
        if (dead or silent) and _take_away(path, holder):
            doubtful = doubtful or not dead
            continue
        if dead:
            progress.note(f"{holder} has ended, and its lock {path} may not be removed: going on without it")
            return Held(mine.token, doubtful, alone=False)
        if not told:
            progress.note(f"waiting for {holder}, which does the same work")
            told = True
        if time.monotonic() > deadline:
            raise RegistryFailure(
                f"gave up waiting for {holder}",
                why=f"it has held {path} for longer than {timeout:.0f} s",
                fix="try again later, or end that process if it hangs",
            )
        time.sleep(_POLL)
    return Held(mine.token, doubtful)


def _create(path: Path, mine: Holder) -> bool:
    """True when the lock is ours now. The content is complete before the name appears (link, not open)."""
    temporary = path.with_name(f".{path.name}.{mine.token}")
    text = json.dumps(asdict(mine))
    with explained(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:  # also NFS's answer to a repeated request whose first one made the link
            return temporary.stat().st_nlink > 1
        finally:
            remove_file(temporary)
    return True


def _read(path: Path) -> Holder | None:
    """The holder, or None when the lock is gone. What nobody can read counts as held by an unknown one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM):
            raise planted(path) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise planted(path)
        text = os.read(descriptor, 4096).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    try:
        value = json.loads(text)
        numbers = int(value["pid"]), int(value["user"])
        return Holder(str(value["host"]), *numbers, str(value["token"]), str(value.get("processes", "")))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Holder("an unknown host", 0, -1, text[:80])


def _stamp(path: Path) -> int:
    """The time of the holder's last sign of life, only ever compared with itself: clocks may differ."""
    try:
        return path.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return 0


def _dead(holder: Holder) -> bool:
    """True when the holder certainly runs no more: same host and process numbers, and no such process."""
    if (holder.host, holder.processes) != (socket.gethostname(), processes()) or holder.pid <= 0:
        return False
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that large
        return True
    except PermissionError:
        return False
    return False


def processes() -> str:
    """What this start of the machine and the namespace of process numbers are called (pid_namespaces(7))."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _take_away(path: Path, holder: Holder) -> bool:
    """Remove a holder's lock; False when this user may not. Of several that try, the rename lets one win."""
    grave = path.with_name(f".{path.name}.dead.{secrets.token_hex(6)}")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    taken = _read(grave)
    if taken is not None and taken != holder:  # a living one came between: give it back
        with contextlib.suppress(OSError):
            os.link(grave, path, follow_symlinks=False)
    remove_file(grave)
    return True


def _refresh(path: Path, mine: Holder, stop: threading.Event) -> None:
    while not stop.wait(REFRESH):
        if _read(path) != mine:
            return
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)

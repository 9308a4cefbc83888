"""Locks between processes that work where ``flock`` is missing, blocks forever, or has no effect.

A lock is a file that only its holder can have created (atomic on local disks, NFS 3 and later, and Lustre). It names
the host, the process, and a random token, and the holder keeps updating its modification time. A lock whose holder is
dead, or has stopped updating it, is renamed away and taken over; only one process can do that. Locks only save
duplicate work: data stays correct without them, thanks to unique temporary names and rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from factory import strict
from factory.errors import Busy, FactoryError
from factory.io.alive import boot, namespace, start_time
from factory.io.ancestors import name_of
from factory.io.below import NO_LINKS, Folder
from factory.io.files import make_folder, storage_error
from factory.io.private import planted
from factory.io.progress import Progress, step
from factory.io.threads import started

REFRESH = 5.0  # seconds between two updates by a holder
STALE = 60.0  # seconds without an update after which a holder on another host counts as dead
_POLL = 0.2
_WRITING = 2.0  # seconds in which the content of a new lock is written
_NOBODY = 1 << 32  # larger than any process or user ID
_LARGEST = 10**20  # number accepted in a lock file
_LIMIT = 4096  # bytes of a lock file


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int
    user: int
    token: str
    processes: str = ""  # the scope of the process ID: boot ID and PID namespace

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.user} on {self.host}"


@dataclass(frozen=True)
class Held:
    """A lock held by this process, under a unique token.

    doubtful: the lock was taken over from a silent holder that may still be alive and continue its work. alone: False
    if a dead holder's lock could not be removed, so that other processes are not locked out.
    """

    token: str
    doubtful: bool = False
    alone: bool = True


@contextlib.contextmanager
def lock(path: Path, timeout: float, progress: Progress) -> Iterator[Held]:
    """Hold the lock while the block runs; see ``lock_in``. For a path that untrusted users cannot redirect."""
    with Folder.at(make_folder(path.parent)) as folder, lock_in(folder, path.name, timeout, progress) as held:
        yield held


@contextlib.contextmanager
def lock_in(folder: Folder, name: str, timeout: float, progress: Progress, *, instead: str = "") -> Iterator[Held]:
    """Hold the lock while the block runs. Waits up to timeout seconds, with a notice that names the holder.

    If a dead holder's lock cannot be removed, the block runs without the lock. instead: advice for the case that
    another user never releases it. Raises Busy on timeout.
    """
    mine = Holder(socket.gethostname(), os.getpid(), os.getuid(), secrets.token_hex(8), processes())
    held = _acquire(folder, name, mine, _Waiting(timeout, progress, instead))
    stop = threading.Event()
    beat = threading.Thread(target=_refresh, args=(folder, name, mine, stop), daemon=True)
    try:
        started(beat)  # without it, another host may take the lock over after STALE and do the work twice
        yield held
    finally:
        stop.set()
        if beat.ident is not None:
            beat.join()
        with contextlib.suppress(OSError):  # the work is done; a lock that is left behind is taken over
            if _read(folder, name) == mine:
                folder.remove(name)


@contextlib.contextmanager
def briefly(folder: Path, seconds: float) -> Iterator[bool]:
    """Hold the kernel's lock of a folder on a local disk, which needs no right to write there (flock(2)).

    Any user who can read the folder can hold it, so do only what takes milliseconds. Yields False if it was not free
    for ``seconds``, or if there are no such locks: the block runs all the same.
    """
    deadline = time.monotonic() + seconds
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        while (held := _lock_now(descriptor)) is False and time.monotonic() < deadline:
            time.sleep(_POLL / 10)
        yield bool(held)
    finally:
        os.close(descriptor)


def _lock_now(descriptor: int) -> bool | None:
    """Return whether the lock is held now; None if the file system has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def holder_in(folder: Folder, name: str) -> Holder | None:
    """Return the current holder of a lock; None if nobody holds it, or its holder is dead."""
    holder = _read(folder, name)
    return None if holder is None or _dead(holder) else holder


@dataclass(frozen=True)
class _Waiting:
    """How long to wait for a lock (seconds), and what to show meanwhile and at the end."""

    timeout: float
    progress: Progress
    instead: str

    def over(self, folder: Folder, name: str, holder: Holder) -> Busy:
        """Return the timeout error. The lock's content may be forged, so it also names the owner of the file."""
        owner = _owner(folder, name)
        others = owner not in (None, os.geteuid())
        whose = f"; the file belongs to {name_of(owner or 0)}" if others else ""
        end = f"ask {name_of(owner or 0)} to end that process" if others else "end that process if it hangs"
        return Busy(
            f"gave up waiting for {holder}",
            why=f"it has held {folder.path / name} for more than {self.timeout:.0f} s{whose}",
            fix=f"try again later, or {end}{f', or {self.instead}' if self.instead and others else ''}",
        )


def _acquire(folder: Folder, name: str, mine: Holder, waiting: _Waiting) -> Held:
    with contextlib.ExitStack() as waits:
        return _wait_for(folder, name, mine, waiting, waits)


def _wait_for(folder: Folder, name: str, mine: Holder, waiting: _Waiting, waits: contextlib.ExitStack) -> Held:
    """Take the lock once it is free, or its holder is dead or silent. waits: ends the step shown meanwhile."""
    doubtful = False
    deadline = time.monotonic() + waiting.timeout
    watched: tuple[Holder, int] | None = None
    since = time.monotonic()
    announced = False
    while not _create(folder, name, mine):
        holder = _read(folder, name)
        if holder is None:
            time.sleep(_POLL / 10)
            continue
        seen = (holder, _stamp(folder, name))
        if seen != watched:
            watched, since = seen, time.monotonic()
        dead, silent = _dead(holder), time.monotonic() - since > STALE
        if (dead or silent) and _take_away(folder, name, holder):
            doubtful = doubtful or not dead
            continue
        if dead:
            path = folder.path / name
            waiting.progress.note(f"{holder} has ended, but its lock {path} cannot be removed: continuing without it")
            return Held(mine.token, doubtful, alone=False)
        if not announced and holder.token:  # without one, the lock is just being written
            waiting.progress.note(f"waiting for {holder}, which is doing the same work")
            waits.enter_context(step(waiting.progress, f"waiting for {holder}"))
            announced = True
        if time.monotonic() > deadline:
            raise waiting.over(folder, name, holder)
        time.sleep(_POLL)
    return Held(mine.token, doubtful)


def _create(folder: Folder, name: str, mine: Holder) -> bool:
    """Try to create the lock. Its content is complete before its name appears (link, not open)."""
    temporary = f".{name}.{mine.token}"
    try:
        _write(folder, temporary, mine)
        folder.second_name(temporary, name)
    except FileExistsError:  # NFS also reports this for a retransmitted request whose first try made the link
        return folder.stat(temporary).st_nlink > 1
    except OSError as error:
        if error.errno in NO_LINKS:
            return _create_in_place(folder, name, mine)
        raise storage_error(error, folder.path / name) or error from error
    finally:
        folder.remove(temporary)
    return True


def _create_in_place(folder: Folder, name: str, mine: Holder) -> bool:
    """The same where the file system has no hard links: for a moment the lock is empty, and held by nobody known."""
    try:
        _write(folder, name, mine)
    except FileExistsError:
        return False
    return True


def _write(folder: Folder, name: str, holder: Holder) -> None:
    with folder.create(name, sync=False) as file:
        file.write(json.dumps(asdict(holder)).encode())


def _read(folder: Folder, name: str) -> Holder | None:
    """Return the holder, or None if the lock is gone. A lock with invalid content has an unknown holder."""
    try:
        text = folder.read(name, _LIMIT)[0].decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except PermissionError as error:
        if _is_new(folder, name):  # being created in place: private until its content is complete
            return Holder("an unknown host", 0, -1, "")
        raise planted(folder.path / name, dir_fd=folder.descriptor) from error
    try:
        value = strict.json_object(text, _LIMIT)
        numbers = (strict.integer(strict.member(value, key), -_NOBODY, _LARGEST) for key in ("pid", "user"))
        pid, user = (min(number, _NOBODY) for number in numbers)
        host, token, processes = (strict.text(value.get(key, "")) for key in ("host", "token", "processes"))
        return Holder(host, pid, user, token, processes)
    except strict.Malformed:
        return Holder("an unknown host", 0, -1, text[:80])


def _is_new(folder: Folder, name: str) -> bool:
    try:
        return abs(time.time() - folder.stat(name).st_mtime) < _WRITING
    except OSError:
        return True


def _stamp(folder: Folder, name: str) -> int:
    """Return the time of the holder's last update. Clocks may differ, so compare it only with itself."""
    try:
        return folder.stat(name).st_mtime_ns
    except FileNotFoundError:
        return 0


def _owner(folder: Folder, name: str) -> int | None:
    try:
        return folder.stat(name).st_uid
    except OSError:
        return None


def _dead(holder: Holder) -> bool:
    """Return whether the holder has certainly ended: same host and PID namespace, but no such process."""
    if (holder.host, holder.processes) != (socket.gethostname(), processes()) or holder.pid <= 0:
        return False
    return start_time(holder.pid) is None


def processes() -> str:
    """Return the scope of process IDs: boot ID and PID namespace; '' if one is unknown."""
    machine, numbers = boot(), namespace()
    return f"{machine} {numbers}" if machine and numbers else ""


def _take_away(folder: Folder, name: str, holder: Holder) -> bool:
    """Remove a holder's lock; return False if this user may not. If several processes try, one rename succeeds."""
    grave = f".{name}.dead.{secrets.token_hex(6)}"
    try:
        folder.move(name, grave)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    taken = _read(folder, grave)
    if taken is not None and taken != holder:  # a live process took the lock in between: restore it
        _give_back(folder, grave, name, taken)
    folder.remove(grave)
    return True


def _give_back(folder: Folder, grave: str, name: str, holder: Holder) -> None:
    try:
        folder.second_name(grave, name)
    except OSError as error:
        if error.errno in NO_LINKS:
            with contextlib.suppress(OSError):
                _create_in_place(folder, name, holder)


def _refresh(folder: Folder, name: str, mine: Holder, stop: threading.Event) -> None:
    while not stop.wait(REFRESH):
        with contextlib.suppress(OSError, FactoryError):  # such as ESTALE: the next update may succeed
            if _read(folder, name) != mine:
                return
            folder.touch(name)

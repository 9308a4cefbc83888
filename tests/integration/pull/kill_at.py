"""Runs singfactory in this process, watches what it does to a store, and ends it at a chosen step. Run as a module.

    python -m tests.integration.pull.kill_at STORE RECORD [--at N] [--signal NAME] [--without-flock]
      [--set MODULE.NAME=SECONDS]... -- ARGUMENT...

Python tells its audit hooks of each change of a file system before it makes it. Those below STORE are the steps,
numbered from 1: step N sends this process the signal. RECORD gets a line of JSON for each step and each fsync. A step
has ``step``, ``path`` and, for renames and links, ``to``; an fsync has ``fsync`` (the path), ``size`` and ``mtime``.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
_CHANGES |= {"os.truncate", "os.utime"}
_TWO_PATHS = {"os.link", "os.rename", "os.symlink"}
# Which argument of an event is the descriptor of the folder of a relative path (docs.python.org, "Audit events").
_FOLDER_AT = {"os.chmod": 2, "os.chown": 3, "os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.utime": 3}
_FLOCK = {"fcntl.flock", "fcntl.lockf"}


class Watch:
    """Counts the steps, and sends the signal at the wanted one (0: never)."""

    def __init__(self, store: Path, record: Path, at: int, number: int, *, without_flock: bool) -> None:
        self._store = f"{store}/"
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._at = at
        self._number = number
        self._without_flock = without_flock
        self._steps = 0
        self._fsync = os.fsync
        self._open = os.open
        self._opening = threading.local()

    def start(self) -> None:
        """Start counting."""
        os.fsync = self.fsync  # type: ignore[assignment]
        os.open = self.open
        sys.addaudithook(self.hook)

    def hook(self, event: str, details: tuple[Any, ...]) -> None:
        """Handle an audit event (PEP 578)."""
        if event in _FLOCK and self._without_flock:
            self._write(step=event, path="")
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        if event == "open":
            path, _, flags = details
            if isinstance(path, int) or not flags & _WRITING:
                return
        elif event not in _CHANGES:
            return
        paths = [_path(place, folder) for place, folder in self._places(event, details)]
        if not f"{paths[-1]}/".startswith(self._store):
            return
        self._steps += 1
        self._write(step=event, path=paths[0], to=paths[-1])
        if self._steps == self._at:
            os.kill(os.getpid(), self._number)

    def _places(self, event: str, details: tuple[Any, ...]) -> list[tuple[Any, int]]:
        """Yield the paths of an event, each with the descriptor of the folder that it is relative to, or -1."""
        if event == "open":
            return [(details[0], getattr(self._opening, "folder", -1))]
        if event in _TWO_PATHS:
            source, target, *folders = details
            return [(source, -1 if event == "os.symlink" else folders[0]), (target, folders[-1])]
        return [(details[0], details[_FOLDER_AT[event]] if event in _FOLDER_AT else -1)]

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Call the real one. Its event does not include the folder."""
        self._opening.folder = -1 if dir_fd is None else dir_fd
        try:
            return self._open(path, flags, mode, dir_fd=dir_fd)
        finally:
            self._opening.folder = -1

    def fsync(self, descriptor: int) -> None:
        """Call the real one, and count it before."""
        found = os.fstat(descriptor)
        self._write(fsync=_path(descriptor), size=found.st_size, mtime=found.st_mtime_ns)
        self._fsync(descriptor)

    def _write(self, **fields: object) -> None:
        os.write(self._record, json.dumps(fields).encode() + b"\n")


def _path(place: Any, folder: int = -1) -> str:
    """Return the path of a file, of an open descriptor, or of a name below an open folder."""
    if isinstance(place, int):
        return str(Path(f"/proc/self/fd/{place}").readlink())
    return os.fsdecode(place) if folder < 0 else f"{_path(folder)}/{os.fsdecode(place)}"


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--without-flock", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    end = arguments.index("--")
    options = parser.parse_args(arguments[:end])
    for text in options.set:
        name, _, value = text.partition("=")
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, float(value))
    from factory.cli import main as singfactory  # noqa: PLC0415 - what was set is set before

    number = signal.Signals[options.signal]
    Watch(options.store, options.record, options.at, number, without_flock=options.without_flock).start()
    return singfactory(arguments[end + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

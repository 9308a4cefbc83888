"""What this user's earlier commands have read of an engine, so that the next one need not start it to ask.

One small file for each state of an engine's file: its path, inode, size, and the times of its last changes, of which
ctime cannot be set. The device is left out: the number of a network file system differs from node to node, and homes
are shared by nodes. Nothing here is needed: what is missing, broken, or could be another user's is asked for again.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from factory import strict
from factory.errors import FactoryError
from factory.io import files, owned

_LIMIT = 8192  # bytes
_MOST = 64  # files in the folder; one for each node whose engine is on its own disk
_ELF = b"\x7fELF"


def recalled(folder: Path, program: Path) -> str:
    """Return what the program has said in the state that it is in, or ''."""
    try:
        key = _key(program)
        value = strict.json_object(owned.read(folder / f"{key}.json", _LIMIT), _LIMIT) if key else {}
        return strict.text(value["says"]) if value.get("program") == ascii(program.resolve()) else ""
    except (OSError, FactoryError, KeyError):
        return ""


def remember(folder: Path, program: Path, says: str) -> None:
    """Keep what the program says. Does nothing where this user's folder cannot be written, as on a read-only home.

    Nothing is kept of a script: what it starts can change while it stays the same, as with the wrappers of modules.
    """
    with contextlib.suppress(OSError, FactoryError):
        key = _key(program)
        nearest = next(place for place in folder.parents if place.exists())
        if not key or nearest.stat().st_uid != os.geteuid():  # in another user's home, as under sudo
            return
        files.make_folder(folder.parent, 0o700)
        files.make_folder(folder, 0o700)
        _forget_oldest(folder)
        value = {"program": ascii(program.resolve()), "says": says}
        files.atomic_write(folder / f"{key}.json", json.dumps(value) + "\n", 0o600)


def _key(program: Path) -> str:
    """Return a name for this state of the program's file; '' for a script."""
    with program.open("rb") as file:
        found = os.fstat(file.fileno())
        if file.read(len(_ELF)) != _ELF:
            return ""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def _forget_oldest(folder: Path) -> None:
    known = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in known[: max(0, len(known) - _MOST + 1)]:
        files.remove_file(path)

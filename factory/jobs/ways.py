"""How the nodes of a job get an image: each for itself, or from one another."""

from __future__ import annotations

from pathlib import Path

from factory.errors import UsageError
from factory.io import plain

AUTO, PIECES, SBCAST, OFF = "auto", "pieces", "sbcast", "off"
_WAYS = (AUTO, PIECES, SBCAST, OFF)
_SMALL = 32 * 1024 * 1024  # bytes; below this, finding each other takes longer than reading
_MOUNTS = Path("/proc/self/mounts")
_LIMIT = 4 * 1024 * 1024  # bytes
# These spread a file over many servers, and serve many readers at once.
_PARALLEL = {"lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "wekafs", "pvfs2", "orangefs", "panfs"}


def choose(setting: str, file: Path, size: int) -> str:
    """Return PIECES, SBCAST or OFF for an image's file in the store. Raises UsageError for another setting."""
    if setting not in _WAYS:
        raise UsageError(f"broadcast is {setting[:40]!r}", fix=f"write one of {', '.join(_WAYS)}")
    if setting != AUTO:
        return setting
    return OFF if size < _SMALL or kind_of(file) in _PARALLEL else PIECES


def kind_of(path: Path) -> str:
    """Return the type of the file system that a path is on, as in proc_pid_mounts(5); '' if it is unknown."""
    try:
        lines = plain.read_plain(_MOUNTS, _LIMIT).decode("utf-8", "surrogateescape").splitlines()
    except (OSError, plain.NotPlainError):
        return ""
    found, kind = -1, ""
    for words in (line.split() for line in lines):
        if len(words) > 2:  # noqa: PLR2004 - device, mount point, type
            point = words[1].replace("\\040", " ")
            if path.is_relative_to(point) and len(point) >= found:
                found, kind = len(point), words[2]
    return kind

"""Mount options that prevent builds in a folder for temporary files."""

from __future__ import annotations

import os
from pathlib import Path

from factory.errors import PlaceUnusable

_FIX = "set SINGFACTORY_TMPDIR, or tmpdir in factory.toml, to a folder on another local disk, such as /var/tmp"


def require_usable(scratch: Path, *, devices: bool = False) -> None:
    """Raise PlaceUnusable if builds cannot work in this folder. devices: the build creates device files."""
    flags = os.statvfs(scratch).f_flag
    if flags & os.ST_NOEXEC:
        raise PlaceUnusable(
            f"images cannot be built in {scratch}",
            why="it is mounted noexec, and builds run the programs of the image there",
            fix=_FIX,
        )
    if devices and flags & os.ST_NODEV:
        raise PlaceUnusable(
            f"this image cannot be built in {scratch}",
            why="it is mounted nodev, and debootstrap as root needs device files there",
            fix=_FIX,
        )

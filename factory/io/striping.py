"""Large files on Lustre: spread over a few storage targets, unless their folder says how (lfs-setstripe(1))."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from factory.errors import FactoryError
from factory.io import process

LUSTRE = 0x0BD00BD0  # f_type of statfs(2)
LARGE = 1 << 30  # bytes; a stripe for each, up to MOST
MOST = 4  # more targets make each read wait for more servers, and a full target stops the file
_LFS = Path("/usr/bin/lfs")
_STATFS_SIZE = 256  # bytes, more than any struct statfs has


def prepare(path: Path, size: int, *, lfs: Path = _LFS, kind: int = LUSTRE) -> bool:
    """Create an empty file with up to MOST stripes, if it will be large; return whether that was done.

    Nothing happens if the file exists, its folder has a layout of its own, the file system is another one, or lfs is
    missing or fails. kind: the file system's number, for tests.
    """
    if size < 2 * LARGE or path.exists() or file_system(path.parent) != kind or not os.access(lfs, os.X_OK):
        return False
    try:
        status, out, _ = process.output_of(
            [str(lfs), "getstripe", "--directory", "--raw", "--stripe-count", str(path.parent)], env={}, timeout=10
        )
        if status != 0 or out.strip() != b"0":  # 0: no layout of its own
            return False
        count = str(min(size // LARGE, MOST))
        status, _, _ = process.output_of(
            [str(lfs), "setstripe", "--stripe-count", count, str(path)], env={}, timeout=10
        )
    except (FactoryError, OSError):
        return False
    return status == 0


def file_system(folder: Path) -> int:
    """The f_type of a folder's file system: the first word of struct statfs; 0 if it is unknown."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    try:
        failed = ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(folder), buffer)
    except AttributeError:
        return 0
    return 0 if failed else ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF

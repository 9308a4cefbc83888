"""Which files ADD unpacks: tar archives, plain or compressed. Docker looks at the content, not at the name."""

from __future__ import annotations

import bz2
import lzma
import zlib
from pathlib import Path

from factory.io.plain import NotPlainError, read_start
from factory.recipes.inside import UnusableError, resolve_inside

_READ = 64 * 1024  # bytes of the file
_HEADER = 512  # bytes of a tar header
_MAGIC = 257  # where it says that it is one
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


def is_archive(folder: Path, path: str) -> bool:
    """Return whether a file of the build context is a tar archive (gzip, bzip2, xz, Zstandard, or not compressed).

    Zstandard is not decompressed here: the name decides.
    """
    try:
        content, _ = read_start(resolve_inside(folder, path), _READ)
    except (OSError, NotPlainError, UnusableError):
        return False
    if content.startswith(_ZSTANDARD):
        return path.endswith((".tar.zst", ".tzst"))
    return _header(content)[_MAGIC : _MAGIC + 5] == b"ustar"


def _header(content: bytes) -> bytes:
    """Return the first bytes of a file, decompressed."""
    try:
        if content.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(content, _HEADER)
        if content.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(content, _HEADER)
        if content.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMADecompressor(memlimit=100_000_000).decompress(content, _HEADER)
    except (OSError, zlib.error, lzma.LZMAError, ValueError):
        return b""
    return content[:_HEADER]

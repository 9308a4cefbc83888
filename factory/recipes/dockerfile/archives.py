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
_OPTIONS = {b"\x1f\x8b": "-xzf", b"BZh": "-xjf", b"\xfd7zXZ\x00": "-xJf"}


def unpacking(folder: Path, path: str) -> str:
    """Return tar's option for a file of the build context if it is a tar archive, '' if it is not.

    The archive can be compressed with gzip, bzip2, xz or Zstandard: not every tar finds that out by itself. Zstandard
    is not decompressed here: the name decides.
    """
    try:
        content, _ = read_start(resolve_inside(folder, path), _READ)
    except (OSError, NotPlainError, UnusableError):
        return ""
    if content.startswith(_ZSTANDARD):
        return "--zstd -xf" if path.endswith((".tar.zst", ".tzst")) else ""
    option = next((option for magic, option in _OPTIONS.items() if content.startswith(magic)), "-xf")
    return option if _header(content)[_MAGIC : _MAGIC + 5] == b"ustar" else ""


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

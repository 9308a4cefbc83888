"""The superblock, metadata blocks and fragment table of squashfs 4.0 (Linux, fs/squashfs/squashfs_fs.h)."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from factory.errors import FactoryError

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
SUPERBLOCK_SIZE = _SUPERBLOCK.size
_MAGIC = 0x73717368  # "hsqs"
_VERSION = (4, 0)
_COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_LARGEST_BLOCK = 1 << 20  # the format's limit for data blocks
METADATA_BLOCK = 8192  # bytes, uncompressed
STORED_BLOCK = 1 << 24  # in a data block's size: not compressed
_STORED = 0x8000  # the same in a metadata block's header
_NO_TABLE = 0xFFFFFFFFFFFFFFFF
NO_FRAGMENT = 0xFFFFFFFF
_FRAGMENTS_PER_BLOCK = METADATA_BLOCK // 16
_FRAGMENT = struct.Struct("<QII")

# Bounds the memory that a hostile file can take. Real images stay far below: a million blocks are about 40 GB of files.
MOST_BLOCKS = 1_000_000


class BlocksUnknown(FactoryError):
    """The blocks of a file system are unknown: it is not squashfs, its compressor is unsupported, or it is damaged.

    Callers that need block boundaries can always do without: images are then chunked by content.
    """


@dataclass(frozen=True)
class Superblock:
    """The fields of a squashfs superblock that locate the blocks. Offsets count from the start of the *file*.

    root: the reference of the root folder's inode. ids: the number of user and group numbers.
    """

    compressor: str
    block_size: int
    inodes: int
    fragments: int
    start: int
    end: int
    inode_table: int
    directory_table: int
    fragment_table: int | None
    tables: tuple[int, ...]
    root: int
    ids: int
    id_table: int | None
    xattr_table: int | None


def read_superblock(file: BinaryIO, start: int, size: int) -> Superblock:
    """Read the superblock of the squashfs in bytes ``start`` to ``start + size`` of an open file.

    Raises BlocksUnknown if there is none, or if its tables are outside of those bytes.
    """
    file.seek(start)
    raw = file.read(min(SUPERBLOCK_SIZE, size))
    if len(raw) < SUPERBLOCK_SIZE:
        raise unknown("it is too small for a superblock")
    magic, inodes, _time, block_size, fragments, compressor, _log, _flags, ids, *rest = _SUPERBLOCK.unpack(raw)
    major, minor, root, used, id_table, xattrs, inode_table, directories, fragment_table, exports = rest
    if magic != _MAGIC or (major, minor) != _VERSION:
        raise unknown("it is not squashfs 4.0")
    if not SUPERBLOCK_SIZE <= inode_table <= directories <= used <= size:
        raise unknown("its tables do not fit into it")
    if not 0 < block_size <= _LARGEST_BLOCK:
        raise unknown(f"it claims blocks of {block_size} bytes")
    optional = [place for place in (fragment_table, exports, id_table, xattrs) if place != _NO_TABLE]
    if any(not directories <= place <= used for place in optional):
        raise unknown("its tables do not fit into it")
    return Superblock(
        compressor=_COMPRESSORS.get(compressor, f"unknown compressor {compressor}"),
        block_size=block_size,
        inodes=inodes,
        fragments=fragments,
        start=start,
        end=start + used,
        inode_table=start + inode_table,
        directory_table=start + directories,
        fragment_table=None if fragment_table == _NO_TABLE else start + fragment_table,
        tables=tuple(sorted(start + place for place in (inode_table, directories, *optional))),
        root=root,
        ids=ids,
        id_table=None if id_table == _NO_TABLE else start + id_table,
        xattr_table=None if xattrs == _NO_TABLE else start + xattrs,
    )


def fragment_blocks(file: BinaryIO, superblock: Superblock) -> Iterator[tuple[int, int]]:
    """Yield the start (from the superblock) and size of each fragment block; the size can have the bit STORED_BLOCK.

    Callers must check them against the data area. Raises BlocksUnknown if the table is damaged.
    """
    if superblock.fragment_table is None or superblock.fragments == 0:
        return
    if superblock.fragments > MOST_BLOCKS:
        raise unknown(f"it claims {superblock.fragments} fragment blocks")
    blocks = -(-superblock.fragments // _FRAGMENTS_PER_BLOCK)
    file.seek(superblock.fragment_table)
    raw = file.read(8 * blocks)
    if len(raw) != 8 * blocks:
        raise unknown("its fragment table is truncated")
    left = superblock.fragments
    for (place,) in struct.iter_unpack("<Q", raw):
        file.seek(min(superblock.start + place, superblock.end))
        entries = metadata_block(file, superblock)
        now = min(left, _FRAGMENTS_PER_BLOCK)
        if len(entries) < now * _FRAGMENT.size:
            raise unknown("its fragment table is truncated")
        for start, size, _unused in _FRAGMENT.iter_unpack(entries[: now * _FRAGMENT.size]):
            yield start, size
        left -= now


def metadata_block(file: BinaryIO, superblock: Superblock) -> bytes:
    """Read and decompress the metadata block at the file's position, at most 8 KiB."""
    header = file.read(2)
    return unpack_metadata(header, file.read(metadata_size(header)), superblock.compressor)


def metadata_size(header: bytes) -> int:
    """Return the stored size of a metadata block, at most 8 KiB, from its two-byte header."""
    size = int.from_bytes(header, "little") & ~_STORED
    if not 0 < size <= METADATA_BLOCK:
        raise unknown(f"a metadata block claims {size} bytes")
    return size


def unpack_metadata(header: bytes, raw: bytes, compressor: str) -> bytes:
    """Return the content of a metadata block, at most 8 KiB. header: the two bytes before ``raw``."""
    if len(raw) != metadata_size(header):
        raise unknown("a metadata block is truncated")
    if header[1] & (_STORED >> 8):
        return raw
    return unpacker(compressor)(raw, METADATA_BLOCK)


def unpacker(compressor: str) -> Callable[[bytes, int], bytes]:
    """Return a function that decompresses a block, given the block and the maximum size of the result.

    Raises BlocksUnknown for a compressor other than gzip and xz. The function raises it for a block that is damaged,
    truncated, followed by other data, or too large.
    """
    unpackers = {"gzip": _gzip, "xz": _xz}
    if compressor not in unpackers:
        raise unknown(f"singfactory cannot read squashfs compressed with {compressor}, only gzip and xz")
    return unpackers[compressor]


def _gzip(raw: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(raw, most + 1)
    except zlib.error as error:
        raise unknown("a block is damaged") from error
    return _checked(content, most, at_end=stream.eof and not stream.unused_data)


def _xz(raw: bytes, most: int) -> bytes:
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=64 << 20)
        content = stream.decompress(raw, most + 1)
    except lzma.LZMAError as error:
        raise unknown("a block is damaged") from error
    return _checked(content, most, at_end=stream.eof and not stream.unused_data)


def _checked(content: bytes, most: int, *, at_end: bool) -> bytes:
    # Callers allow one extra byte: a valid stream then reaches its end, and one that is too long is detected.
    if len(content) > most:
        raise unknown(f"a block decompresses to more than the limit of {most} bytes")
    if not at_end:
        raise unknown("a block is damaged")
    return content


def unknown(why: str) -> BlocksUnknown:
    """Return the error for an unreadable file system. why: what is wrong with it."""
    return BlocksUnknown("the image's file system cannot be read", why=why)

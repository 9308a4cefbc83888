"""Where the blocks of a squashfs file system begin and end (squashfs 4.0; Linux, fs/squashfs/squashfs_fs.h).

squashfs compresses every block by itself and packs blocks without gaps, so a file that two images share is
stored as the same bytes at different offsets. The edges of the blocks are found in the block lists of the
file inodes and in the fragment table; no data block is read.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

from factory.errors import FactoryError

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
SUPERBLOCK_SIZE = _SUPERBLOCK.size
_MAGIC = 0x73717368  # "hsqs"
_VERSION = (4, 0)
_COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_LARGEST_BLOCK = 1 << 20  # the format's limit for data blocks
METADATA_BLOCK = 8192  # bytes, unpacked
STORED_BLOCK = 1 << 24  # in a data block's size: not compressed
_STORED = 0x8000  # the same in a metadata block's header
_SIZE = STORED_BLOCK - 1
_NO_TABLE = 0xFFFFFFFFFFFFFFFF
NO_FRAGMENT = 0xFFFFFFFF
_FRAGMENTS_PER_BLOCK = METADATA_BLOCK // 16
_FRAGMENT = struct.Struct("<QII")
_BLOCKS_AT_ONCE = 1 << 16

# What a hostile file can make us hold: honest images stay far below (a million blocks are some 40 GB of files).
_MOST_EDGES = 1_000_000
_LARGEST_INODE_TABLE = 64 << 20  # bytes, unpacked

_INODE_HEADER = 16
_BASIC_FILE = struct.Struct("<IIII")  # start, fragment, offset in it, file size
_EXTENDED_FILE = struct.Struct("<QQQIIII")  # start, file size, sparse, links, fragment, offset in it, xattr
_EXTENDED_FOLDER = struct.Struct("<IIIIHHI")  # links, size, block, parent, index entries, offset, xattr
_FOLDER_INDEX = struct.Struct("<III")  # index, start, length of the name less one
_SYMLINK = struct.Struct("<II")  # links, length of the target
_BODY_SIZES = {1: 16, 4: 8, 5: 8, 6: 4, 7: 4, 11: 12, 12: 12, 13: 8, 14: 8}  # inodes without anything after them


class BlocksUnknown(FactoryError):
    """The blocks of a file system cannot be told: not squashfs, a compressor we cannot read, or broken tables.

    What needs block edges can always do without; images are cut by their content then.
    """


@dataclass(frozen=True)
class Superblock:
    """The part of a squashfs superblock that leads to the blocks. Offsets count from the start of the *file*.

    root: the reference of the root folder's inode. ids: how many user and group numbers there are.
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

    Raises BlocksUnknown when there is none, or when its tables lie outside of those bytes.
    """
    file.seek(start)
    raw = file.read(min(SUPERBLOCK_SIZE, size))
    if len(raw) < SUPERBLOCK_SIZE:
        raise unknown("there is no room for a superblock")
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


def block_edges(file: BinaryIO, superblock: Superblock) -> array[int]:
    """The offsets in the file, ascending, where a data block, a fragment block or a table begins or ends.

    Raises BlocksUnknown when the tables are broken, packed by a compressor outside of Python's standard
    library (gzip and xz are in it), or larger than any honest image needs.
    """
    edges = _Edges(superblock)
    _read_inodes(_Metadata(file, superblock), superblock, edges)
    _read_fragments(file, superblock, edges)
    edges.found.extend((superblock.start + SUPERBLOCK_SIZE, *superblock.tables, superblock.end))
    return distinct(edges.found)


def distinct(offsets: Iterable[int]) -> array[int]:
    """The offsets in ascending order, each once; a set of a million of them would take ten times the memory."""
    return array("Q", (offset for offset, _ in groupby(sorted(offsets))))


class _Edges:
    """Collects the edges of runs of blocks, and refuses those outside of the data area."""

    def __init__(self, superblock: Superblock) -> None:
        self._start = superblock.start
        self._first = superblock.start + SUPERBLOCK_SIZE
        self._last = superblock.inode_table
        self._largest = superblock.block_size
        self.found = array("Q")

    def add(self, start: int, sizes: list[int]) -> int:
        """Take blocks that follow each other from ``start``, as far from the superblock; where they end."""
        at = start + self._start
        if at < self._first:
            raise unknown(f"a block begins at {start}, in the superblock")
        if len(self.found) + len(sizes) >= _MOST_EDGES:
            raise unknown(f"it has more than {_MOST_EDGES} blocks")
        self.found.append(min(at, self._last))
        for size in sizes:
            if size > self._largest:
                raise unknown(f"a block of {size} bytes is larger than the {self._largest} it may have")
            at += size
            if at > self._last:
                raise unknown(f"a block ends at {at - self._start}, after the data")
            self.found.append(at)
        return at - self._start


def _read_inodes(table: _Metadata, superblock: Superblock, edges: _Edges) -> None:
    for _ in range(superblock.inodes):
        kind = int.from_bytes(table.take(_INODE_HEADER)[:2], "little")
        if kind == 2:  # noqa: PLR2004 - the numbers of inode types are the format's
            start, fragment, _offset, size = _BASIC_FILE.unpack(table.take(_BASIC_FILE.size))
            _read_block_list(table, superblock, edges, start, size, has_tail=fragment != NO_FRAGMENT)
        elif kind == 9:  # noqa: PLR2004
            start, size, _sparse, _links, fragment, _offset, _xattr = _EXTENDED_FILE.unpack(
                table.take(_EXTENDED_FILE.size)
            )
            _read_block_list(table, superblock, edges, start, size, has_tail=fragment != NO_FRAGMENT)
        elif kind in (3, 10):
            _links, length = _SYMLINK.unpack(table.take(_SYMLINK.size))
            table.take(length + (4 if kind == 10 else 0))  # noqa: PLR2004
        elif kind == 8:  # noqa: PLR2004
            _links, _size, _block, _parent, entries, _offset, _xattr = _EXTENDED_FOLDER.unpack(
                table.take(_EXTENDED_FOLDER.size)
            )
            for _ in range(entries):
                table.take(_FOLDER_INDEX.unpack(table.take(_FOLDER_INDEX.size))[2] + 1)
        elif kind in _BODY_SIZES:
            table.take(_BODY_SIZES[kind])
        else:
            raise unknown(f"there is no inode type {kind}")


def _read_block_list(
    table: _Metadata, superblock: Superblock, edges: _Edges, start: int, size: int, *, has_tail: bool
) -> None:
    whole, tail = divmod(size, superblock.block_size)
    count = whole + (1 if tail and not has_tail else 0)
    while count > 0:
        now = min(count, _BLOCKS_AT_ONCE)  # a sparse file may have any number of them
        sizes = [size & _SIZE for size in struct.unpack(f"<{now}I", table.take(4 * now))]
        start = edges.add(start, [size for size in sizes if size])
        count -= now


def _read_fragments(file: BinaryIO, superblock: Superblock, edges: _Edges) -> None:
    for start, size in fragment_blocks(file, superblock):
        edges.add(start, [size & _SIZE])


def fragment_blocks(file: BinaryIO, superblock: Superblock) -> Iterator[tuple[int, int]]:
    """Start (from the superblock) and size of each fragment block; the size may have the bit STORED_BLOCK.

    Nothing is checked against the data area. Raises BlocksUnknown when the table is broken.
    """
    if superblock.fragment_table is None or superblock.fragments == 0:
        return
    if superblock.fragments > _MOST_EDGES:
        raise unknown(f"it claims {superblock.fragments} fragment blocks")
    blocks = -(-superblock.fragments // _FRAGMENTS_PER_BLOCK)
    file.seek(superblock.fragment_table)
    raw = file.read(8 * blocks)
    if len(raw) != 8 * blocks:
        raise unknown("its fragment table is cut off")
    left = superblock.fragments
    for (place,) in struct.iter_unpack("<Q", raw):
        file.seek(min(superblock.start + place, superblock.end))
        entries = _metadata_block(file, superblock)
        now = min(left, _FRAGMENTS_PER_BLOCK)
        if len(entries) < now * _FRAGMENT.size:
            raise unknown("its fragment table is cut off")
        for start, size, _unused in _FRAGMENT.iter_unpack(entries[: now * _FRAGMENT.size]):
            yield start, size
        left -= now


class _Metadata:
    """The inode table as one stream of unpacked bytes."""

    def __init__(self, file: BinaryIO, superblock: Superblock) -> None:
        self._blocks = _table_blocks(file, superblock)
        self._buffer = bytearray()
        self._seen = 0

    def take(self, count: int) -> bytes:
        """Exactly ``count`` more bytes."""
        while len(self._buffer) < count:
            block = next(self._blocks, b"")
            self._seen += METADATA_BLOCK  # only the last one has less, and each takes its time
            if not block:
                raise unknown("its inode table is cut off")
            if self._seen > _LARGEST_INODE_TABLE:
                raise unknown(f"its inode table is longer than {_LARGEST_INODE_TABLE} bytes")
            self._buffer += block
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _table_blocks(file: BinaryIO, superblock: Superblock) -> Iterator[bytes]:
    file.seek(superblock.inode_table)
    while file.tell() < superblock.directory_table:
        yield _metadata_block(file, superblock)


def _metadata_block(file: BinaryIO, superblock: Superblock) -> bytes:
    """The metadata block at the file's position, unpacked: at most 8 KiB."""
    header = file.read(2)
    return unpack_metadata(header, file.read(metadata_size(header)), superblock.compressor)


def metadata_size(header: bytes) -> int:
    """How many bytes follow the two bytes that a metadata block begins with: at most 8 KiB."""
    size = int.from_bytes(header, "little") & ~_STORED
    if not 0 < size <= METADATA_BLOCK:
        raise unknown(f"a metadata block claims {size} bytes")
    return size


def unpack_metadata(header: bytes, raw: bytes, compressor: str) -> bytes:
    """The content of a metadata block, at most 8 KiB. header: the two bytes before ``raw``."""
    if len(raw) != metadata_size(header):
        raise unknown("a metadata block is cut off")
    if header[1] & (_STORED >> 8):
        return raw
    return unpacker(compressor)(raw, METADATA_BLOCK)


def unpacker(compressor: str) -> Callable[[bytes, int], bytes]:
    """What unpacks a block, given the most bytes that may come out of it.

    Raises BlocksUnknown for a compressor outside of Python's standard library, and so does what it gives for a
    block that is damaged, cut off, followed by something else, or longer than it may be.
    """
    unpackers = {"gzip": _gzip, "xz": _xz}
    if compressor not in unpackers:
        raise unknown(f"Python's standard library cannot read {compressor}")
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
    # The byte more that was allowed lets a sound stream come to its end, and shows one that is too long.
    if len(content) > most:
        raise unknown(f"a block unpacks to more than the {most} bytes that it may have")
    if not at_end:
        raise unknown("a block is damaged")
    return content


def unknown(why: str) -> BlocksUnknown:
    """The error of everything here; why: what does not hold."""
    return BlocksUnknown("the blocks of the file system cannot be told", why=why)

"""Find where the blocks of a squashfs file system begin and end.

squashfs compresses every block separately and packs blocks without gaps, so a file that two images share is
stored as the same bytes at different offsets. The block boundaries come from the block lists of the inodes
and from the fragment table; no data block is read.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import BinaryIO

from factory.sif.inodes import FOLDER_INDEX, Content, read_body, read_type
from factory.sif.squashfs import (
    METADATA_BLOCK,
    MOST_BLOCKS,
    STORED_BLOCK,
    SUPERBLOCK_SIZE,
    Superblock,
    fragment_blocks,
    metadata_block,
    unknown,
)

_SIZE = STORED_BLOCK - 1
_BLOCKS_AT_ONCE = 1 << 16
_LARGEST_INODE_TABLE = 64 << 20  # bytes, uncompressed; real images stay far below


def block_edges(file: BinaryIO, superblock: Superblock) -> array[int]:
    """Return the file offsets, ascending, where a data block, a fragment block or a table begins or ends.

    Raises BlocksUnknown if the tables are damaged, larger than any real image needs, or compressed with
    something other than gzip or xz.
    """
    edges = _Edges(superblock)
    _read_inodes(_Metadata(file, superblock), superblock, edges)
    _read_fragments(file, superblock, edges)
    edges.found.extend((superblock.start + SUPERBLOCK_SIZE, *superblock.tables, superblock.end))
    return distinct(edges.found)


def distinct(offsets: Iterable[int]) -> array[int]:
    """Return the distinct offsets in ascending order. A set of a million of them would take ten times the memory."""
    return array("Q", (offset for offset, _ in groupby(sorted(offsets))))


class _Edges:
    """Collects the boundaries of blocks, and refuses blocks outside of the data area."""

    def __init__(self, superblock: Superblock) -> None:
        self._start = superblock.start
        self._first = superblock.start + SUPERBLOCK_SIZE
        self._last = superblock.inode_table
        self._largest = superblock.block_size
        self.found = array("Q")

    def add(self, start: int, sizes: list[int]) -> int:
        """Add consecutive blocks and return their end. ``start`` and the end are relative to the superblock."""
        at = start + self._start
        if at < self._first:
            raise unknown(f"a block begins at {start}, in the superblock")
        if len(self.found) + len(sizes) >= MOST_BLOCKS:
            raise unknown(f"it has more than {MOST_BLOCKS} blocks")
        self.found.append(min(at, self._last))
        for size in sizes:
            if size > self._largest:
                raise unknown(f"a block of {size} bytes is larger than the limit of {self._largest}")
            at += size
            if at > self._last:
                raise unknown(f"a block ends at {at - self._start}, after the data area")
            self.found.append(at)
        return at - self._start


def _read_inodes(table: _Metadata, superblock: Superblock, edges: _Edges) -> None:
    for _ in range(superblock.inodes):
        body = read_body(table, read_type(table))
        if body.content is not None:
            _read_block_list(table, superblock, edges, body.content)
        for _ in range(body.index_entries):
            table.take(FOLDER_INDEX.unpack(table.take(FOLDER_INDEX.size))[2] + 1)


def _read_block_list(table: _Metadata, superblock: Superblock, edges: _Edges, content: Content) -> None:
    whole, tail = divmod(content.size, superblock.block_size)
    count = whole + (1 if tail and content.fragment is None else 0)
    start = content.start
    while count > 0:
        now = min(count, _BLOCKS_AT_ONCE)  # a sparse file can have any number of blocks
        sizes = [size & _SIZE for size in struct.unpack(f"<{now}I", table.take(4 * now))]
        start = edges.add(start, [size for size in sizes if size])
        count -= now


def _read_fragments(file: BinaryIO, superblock: Superblock, edges: _Edges) -> None:
    for start, size in fragment_blocks(file, superblock):
        edges.add(start, [size & _SIZE])


class _Metadata:
    """The inode table as a stream of uncompressed bytes."""

    def __init__(self, file: BinaryIO, superblock: Superblock) -> None:
        self._blocks = _table_blocks(file, superblock)
        self._buffer = b""
        self._at = 0  # in the buffer
        self._seen = 0
        self.reference = 0  # unused: inodes are read in sequence

    def take(self, count: int) -> bytes:
        """Read exactly ``count`` bytes."""
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = count
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _fill(self, count: int) -> None:
        """Begin the buffer at the next byte, with at least ``count`` bytes in it."""
        buffer = bytearray(self._buffer[self._at :])
        while len(buffer) < count:
            block = next(self._blocks, b"")
            self._seen += METADATA_BLOCK  # a full block each: tiny ones cost as much time
            if not block:
                raise unknown("its inode table is truncated")
            if self._seen > _LARGEST_INODE_TABLE:
                raise unknown(f"its inode table is longer than {_LARGEST_INODE_TABLE} bytes")
            buffer += block
        self._buffer, self._at = bytes(buffer), 0


def _table_blocks(file: BinaryIO, superblock: Superblock) -> Iterator[bytes]:
    file.seek(superblock.inode_table)
    while file.tell() < superblock.directory_table:
        yield metadata_block(file, superblock)

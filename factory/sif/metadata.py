"""The metadata of squashfs 4.0: tables of compressed blocks, user and group numbers, extended attributes.

Specification: Linux, fs/squashfs (cache.c, id.c, xattr.c). A *reference* is a position in a table: the offset of the
compressed block in the upper bits, the offset in the uncompressed block in the lower 16.
"""

from __future__ import annotations

import os
import struct

from factory.sif.squashfs import METADATA_BLOCK, Superblock, metadata_size, unknown, unpack_metadata

_LARGEST_TABLE = 64 << 20  # bytes, uncompressed; enough for about a million files
_XATTR_TABLE = struct.Struct("<QII")  # start of names and values, number of lists, unused
_XATTR_LIST = struct.Struct("<QII")  # reference, number of attributes, bytes
_XATTR_PREFIXES = {0: b"user.", 1: b"trusted.", 2: b"security."}
_XATTR_ELSEWHERE = 0x100  # in the type: the value is a reference to the value
_LARGEST_XATTR = 1 << 16  # bytes, the limit of Linux
_ALL_XATTRS = 64 << 20  # bytes of all lists together
_ATTRIBUTE = 128  # bytes of Python's overhead for a name or a value


class Image:
    """An open file with its superblock. Thread-safe."""

    def __init__(self, descriptor: int, superblock: Superblock) -> None:
        self._descriptor = descriptor
        self.superblock = superblock

    def read(self, place: int, size: int) -> bytes:
        """Read up to ``size`` bytes from offset ``place`` of the file, not beyond the end of the file system."""
        size = min(size, self.superblock.end - place)
        return os.pread(self._descriptor, size, place) if size > 0 else b""


class Table:
    """Metadata blocks from offset ``start`` of the file. Each is decompressed once, on first use."""

    def __init__(self, image: Image, start: int) -> None:
        self._image = image
        self._start = start
        self._blocks: dict[int, tuple[bytes, int]] = {}
        self._unpacked = 0

    def at(self, reference: int) -> Cursor:
        """Return a cursor at a reference."""
        return Cursor(self, reference >> 16, reference & 0xFFFF)

    def block(self, place: int) -> tuple[bytes, int]:
        """Return the uncompressed block at offset ``place`` of the table, and the offset of the next one."""
        known = self._blocks.get(place)
        if known is None:
            at = self._start + place
            raw = self._image.read(at, 2 + METADATA_BLOCK)
            size = metadata_size(raw[:2])
            content = unpack_metadata(raw[:2], raw[2 : 2 + size], self._image.superblock.compressor)
            self._unpacked += METADATA_BLOCK  # a full block each: Python's overhead dominates tiny ones
            if self._unpacked > _LARGEST_TABLE:
                raise unknown(f"a table is longer than {_LARGEST_TABLE} bytes")
            known = self._blocks[place] = content, place + 2 + size
        return known


class Cursor:
    """Reads a table from a position on."""

    __slots__ = ("_content", "_next", "_offset", "_place", "_table")

    def __init__(self, table: Table, place: int, offset: int) -> None:
        self._table = table
        self._place = place
        self._content, self._next = table.block(place)
        if offset > len(self._content):
            raise unknown("a reference points beyond its block")
        self._offset = offset

    @property
    def reference(self) -> int:
        """The current position."""
        return self._place << 16 | self._offset

    def take(self, size: int) -> bytes:
        """Read exactly ``size`` bytes."""
        end = self._offset + size
        if end <= len(self._content):
            taken = self._content[self._offset : end]
            self._offset = end
            return taken
        pieces = [self._content[self._offset :]]
        while end > len(self._content):
            end -= len(self._content)
            self._place = self._next
            self._content, self._next = self._table.block(self._place)
            if not self._content:
                raise unknown("a table is truncated")
            pieces.append(self._content[:end])
        self._offset = end
        return b"".join(pieces)


class Lookup:
    """A table of entries of equal size, found by number through the index of blocks at offset ``index``.

    Entries are read on demand: a hostile index can claim any number of them and repeat one block.
    """

    def __init__(self, image: Image, index: int, count: int, size: int) -> None:
        self._size = size
        self._per_block = METADATA_BLOCK // size
        blocks = -(-count // self._per_block)
        self._places = image.read(index, 8 * blocks)
        if len(self._places) != 8 * blocks:
            raise unknown("the index of a table is truncated")
        self._table = Table(image, image.superblock.start)
        self.count = count

    def entry(self, number: int) -> bytes:
        """Return an entry; number is below ``count``."""
        block, at = divmod(number, self._per_block)
        (place,) = struct.unpack_from("<Q", self._places, 8 * block)
        entry = self._table.block(place)[0][at * self._size : (at + 1) * self._size]
        if len(entry) != self._size:
            raise unknown("a table is truncated")
        return entry


def read_ids(image: Image) -> tuple[int, ...]:
    """Return the table of user and group numbers; inodes contain indexes into it."""
    block = image.superblock
    if block.id_table is None:
        raise unknown("it has no table of users and groups")
    ids = Lookup(image, block.id_table, block.ids, 4)
    return tuple(int.from_bytes(ids.entry(number), "little") for number in range(ids.count))


class Xattrs:
    """The lists of extended attributes. Inodes refer to a list by number, and often share one."""

    def __init__(self, image: Image) -> None:
        self._lists: Lookup | None = None
        self._known: dict[int, tuple[tuple[str, bytes], ...]] = {}
        self._budget = _ALL_XATTRS
        place = image.superblock.xattr_table
        if place is None:
            return
        raw = image.read(place, _XATTR_TABLE.size)
        if len(raw) != _XATTR_TABLE.size:
            raise unknown("its table of extended attributes is truncated")
        start, count, _unused = _XATTR_TABLE.unpack(raw)
        if count * _XATTR_LIST.size > _LARGEST_TABLE:
            raise unknown(f"it claims {count} lists of extended attributes")
        self._lists = Lookup(image, place + _XATTR_TABLE.size, count, _XATTR_LIST.size)
        self._table = Table(image, image.superblock.start + start)

    def read(self, number: int) -> tuple[tuple[str, bytes], ...]:
        """Return the names and values of a list, ordered by name."""
        if number not in self._known:
            if self._lists is None or number >= self._lists.count:
                raise unknown(f"the list {number} of extended attributes does not exist")
            reference, count, _size = _XATTR_LIST.unpack(self._lists.entry(number))
            cursor = self._table.at(reference)
            self._known[number] = tuple(sorted(self._attribute(cursor) for _ in range(count)))
        return self._known[number]

    def _attribute(self, cursor: Cursor) -> tuple[str, bytes]:
        kind, length = struct.unpack("<HH", cursor.take(4))
        prefix = _XATTR_PREFIXES.get(kind & 0xFF)
        if prefix is None:
            raise unknown(f"the extended attribute type {kind} does not exist")
        name = prefix + self._bytes(cursor, length)
        (size,) = struct.unpack("<I", cursor.take(4))
        value = self._bytes(cursor, size)
        if kind & _XATTR_ELSEWHERE:
            if len(value) != 8:  # noqa: PLR2004 - a reference
                raise unknown("an extended attribute has no value")
            elsewhere = self._table.at(int.from_bytes(value, "little"))
            (size,) = struct.unpack("<I", elsewhere.take(4))
            value = self._bytes(elsewhere, size)
        return name.decode("utf-8", "surrogateescape"), value

    def _bytes(self, cursor: Cursor, size: int) -> bytes:
        self._budget -= size + _ATTRIBUTE
        if size > _LARGEST_XATTR or self._budget < 0:
            raise unknown("its extended attributes are too large")
        return cursor.take(size)

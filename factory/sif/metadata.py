"""The metadata of a squashfs: tables of packed blocks, user and group numbers, extended attributes.

Squashfs 4.0 as Linux reads it (fs/squashfs: cache.c, id.c, xattr.c). A *reference* is the place of something in
a table: the offset of its packed block in the upper bits, the offset in the unpacked block in the lower 16.
"""

from __future__ import annotations

import os
import struct

from factory.sif.squashfs import METADATA_BLOCK, Superblock, metadata_size, unknown, unpack_metadata

_LARGEST_TABLE = 64 << 20  # bytes, unpacked; a million files need about that much
_XATTR_TABLE = struct.Struct("<QII")  # start of names and values, number of lists, unused
_XATTR_LIST = struct.Struct("<QII")  # reference, number of attributes, bytes
_XATTR_PREFIXES = {0: b"user.", 1: b"trusted.", 2: b"security."}
_XATTR_ELSEWHERE = 0x100  # in the type: the value is a reference to the value
_LARGEST_XATTR = 1 << 16  # bytes; Linux allows no more
_ALL_XATTRS = 64 << 20  # bytes of all lists together
_ATTRIBUTE = 128  # bytes that Python takes for a name or a value beside its own


class Image:
    """An open file that several threads may read; it knows the file system's superblock."""

    def __init__(self, descriptor: int, superblock: Superblock) -> None:
        self._descriptor = descriptor
        self.superblock = superblock

    def read(self, place: int, size: int) -> bytes:
        """At most ``size`` bytes from offset ``place`` of the file, none from behind the file system."""
        size = min(size, self.superblock.end - place)
        return os.pread(self._descriptor, size, place) if size > 0 else b""


class Table:
    """Metadata blocks from offset ``start`` of the file on. Each is unpacked once, when it is first asked for."""

    def __init__(self, image: Image, start: int) -> None:
        self._image = image
        self._start = start
        self._blocks: dict[int, tuple[bytes, int]] = {}
        self._unpacked = 0

    def at(self, reference: int) -> Cursor:
        """A cursor at the place that a reference names."""
        return Cursor(self, reference >> 16, reference & 0xFFFF)

    def block(self, place: int) -> tuple[bytes, int]:
        """The block at offset ``place`` of the table, unpacked, and the offset of the one behind it."""
        known = self._blocks.get(place)
        if known is None:
            at = self._start + place
            raw = self._image.read(at, 2 + METADATA_BLOCK)
            size = metadata_size(raw[:2])
            content = unpack_metadata(raw[:2], raw[2 : 2 + size], self._image.superblock.compressor)
            self._unpacked += METADATA_BLOCK  # only the last one has less; of tiny ones, what Python adds is the most
            if self._unpacked > _LARGEST_TABLE:
                raise unknown(f"a table is longer than {_LARGEST_TABLE} bytes")
            known = self._blocks[place] = content, place + 2 + size
        return known


class Cursor:
    """Reads a table from one place onwards."""

    __slots__ = ("_content", "_next", "_offset", "_place", "_table")

    def __init__(self, table: Table, place: int, offset: int) -> None:
        self._table = table
        self._place = place
        self._content, self._next = table.block(place)
        if offset > len(self._content):
            raise unknown("a reference points behind its block")
        self._offset = offset

    @property
    def reference(self) -> int:
        """Where the cursor is now."""
        return self._place << 16 | self._offset

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes more."""
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
                raise unknown("a table is cut off")
            pieces.append(self._content[:end])
        self._offset = end
        return b"".join(pieces)


class Lookup:
    """A table of entries of one size, found by their number: an index at offset ``index`` leads to their blocks.

    An entry is read when it is asked for: the index may lead to one block again and again, and claim any number.
    """

    def __init__(self, image: Image, index: int, count: int, size: int) -> None:
        self._size = size
        self._per_block = METADATA_BLOCK // size
        blocks = -(-count // self._per_block)
        self._places = image.read(index, 8 * blocks)
        if len(self._places) != 8 * blocks:
            raise unknown("the index of a table is cut off")
        self._table = Table(image, image.superblock.start)
        self.count = count

    def entry(self, number: int) -> bytes:
        """The entry with a number below ``count``."""
        block, at = divmod(number, self._per_block)
        (place,) = struct.unpack_from("<Q", self._places, 8 * block)
        entry = self._table.block(place)[0][at * self._size : (at + 1) * self._size]
        if len(entry) != self._size:
            raise unknown("a table is cut off")
        return entry


def read_ids(image: Image) -> tuple[int, ...]:
    """The user and group numbers that inodes name by their index."""
    block = image.superblock
    if block.id_table is None:
        raise unknown("it has no table of users and groups")
    ids = Lookup(image, block.id_table, block.ids, 4)
    return tuple(int.from_bytes(ids.entry(number), "little") for number in range(ids.count))


class Xattrs:
    """The lists of extended attributes. Inodes name a list by its number, and often share one."""

    def __init__(self, image: Image) -> None:
        self._lists: Lookup | None = None
        self._known: dict[int, tuple[tuple[str, bytes], ...]] = {}
        self._room = _ALL_XATTRS
        place = image.superblock.xattr_table
        if place is None:
            return
        raw = image.read(place, _XATTR_TABLE.size)
        if len(raw) != _XATTR_TABLE.size:
            raise unknown("its table of extended attributes is cut off")
        start, count, _unused = _XATTR_TABLE.unpack(raw)
        if count * _XATTR_LIST.size > _LARGEST_TABLE:
            raise unknown(f"it claims {count} lists of extended attributes")
        self._lists = Lookup(image, place + _XATTR_TABLE.size, count, _XATTR_LIST.size)
        self._table = Table(image, image.superblock.start + start)

    def read(self, number: int) -> tuple[tuple[str, bytes], ...]:
        """The names and values of a list, ordered by name."""
        if number not in self._known:
            if self._lists is None or number >= self._lists.count:
                raise unknown(f"there is no list of extended attributes {number}")
            reference, count, _size = _XATTR_LIST.unpack(self._lists.entry(number))
            cursor = self._table.at(reference)
            self._known[number] = tuple(sorted(self._attribute(cursor) for _ in range(count)))
        return self._known[number]

    def _attribute(self, cursor: Cursor) -> tuple[str, bytes]:
        kind, length = struct.unpack("<HH", cursor.take(4))
        prefix = _XATTR_PREFIXES.get(kind & 0xFF)
        if prefix is None:
            raise unknown(f"there is no type {kind} of extended attributes")
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
        self._room -= size + _ATTRIBUTE
        if size > _LARGEST_XATTR or self._room < 0:
            raise unknown("its extended attributes are larger than Linux allows")
        return cursor.take(size)

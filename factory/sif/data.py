"""The data blocks and fragments of a squashfs 4.0: the contents of its files (Linux, fs/squashfs/file.c)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from functools import lru_cache

from factory.sif.inodes import Content, Inodes
from factory.sif.metadata import Image, Lookup
from factory.sif.squashfs import STORED_BLOCK, SUPERBLOCK_SIZE, unknown, unpacker

_FRAGMENT = struct.Struct("<QII")  # start, size as stored, unused
_FRAGMENTS_KEPT = 8  # unpacked; files that share a fragment are mostly read one after the other


class Data:
    """Reads contents. Several threads may."""

    def __init__(self, image: Image, inodes: Inodes) -> None:
        self._image = image
        self._inodes = inodes
        self._superblock = block = image.superblock
        table = block.fragment_table
        self._fragments = Lookup(image, table, block.fragments, _FRAGMENT.size) if table is not None else None
        self._zeros = bytes(image.superblock.block_size)
        self._fragment = lru_cache(maxsize=_FRAGMENTS_KEPT)(self._read_fragment)

    def identity(self, content: Content) -> tuple[int, int, int | None, int, bytes]:
        """What two files have in common only when they are stored as the same blocks.

        It has the digest of the sizes of all blocks, not the sizes: the lists of many files may lie in each other, and
        together be far larger than their table.
        """
        sizes = hashlib.sha256(self._block_list(content)).digest()
        return content.start, content.size, content.fragment, content.offset, sizes

    def _block_list(self, content: Content) -> bytes:
        """The sizes of the blocks of a file as they are stored; a tail in a fragment is not among them."""
        whole, tail = divmod(content.size, self._superblock.block_size)
        return self._inodes.block_list(content, whole + (1 if tail and content.fragment is None else 0))

    def blocks(self, content: Content) -> Iterator[bytes]:
        """The bytes of a file, in blocks of the file system's size; the last one may be shorter."""
        place = self._superblock.start + content.start
        left = content.size
        for (stored,) in struct.iter_unpack("<I", self._block_list(content)):
            size = min(left, self._superblock.block_size)
            if stored == 0:
                yield self._zeros[:size]
            else:
                block = self._block(place, stored)
                if len(block) != size:
                    raise unknown(f"a block has {len(block)} bytes where {size} should be")
                yield block
                place += stored & ~STORED_BLOCK
            left -= size
        if left:
            yield self._tail(content, left)

    def _tail(self, content: Content, size: int) -> bytes:
        if content.fragment is None or self._fragments is None or content.fragment >= self._fragments.count:
            raise unknown(f"there is no fragment {content.fragment}")
        tail = self._fragment(content.fragment)[content.offset : content.offset + size]
        if len(tail) != size:
            raise unknown("a file reaches behind the end of its fragment")
        return tail

    def _read_fragment(self, number: int) -> bytes:
        if self._fragments is None:
            raise unknown(f"there is no fragment {number}")
        start, stored, _unused = _FRAGMENT.unpack(self._fragments.entry(number))
        return self._block(self._superblock.start + start, stored)

    def _block(self, place: int, stored: int) -> bytes:
        size = stored & ~STORED_BLOCK
        if size > self._superblock.block_size:
            raise unknown(f"a block of {size} bytes is larger than the {self._superblock.block_size} it may have")
        if place < self._superblock.start + SUPERBLOCK_SIZE or place + size > self._superblock.inode_table:
            raise unknown("a block lies outside of the data")
        raw = self._image.read(place, size)
        if len(raw) != size:
            raise unknown("a block is cut off")
        return raw if stored & STORED_BLOCK else unpacker(self._superblock.compressor)(raw, self._superblock.block_size)

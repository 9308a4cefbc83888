"""Read the contents of files: data blocks and fragments of squashfs 4.0 (Linux, fs/squashfs/file.c)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from functools import lru_cache

from factory.sif.inodes import Content, Inodes
from factory.sif.metadata import Image, Lookup
from factory.sif.squashfs import STORED_BLOCK, SUPERBLOCK_SIZE, unknown, unpacker

_FRAGMENT = struct.Struct("<QII")  # start, size as stored, unused
_FRAGMENTS_KEPT = 8  # uncompressed; files that share a fragment are usually read in sequence


class Data:
    """Reads the contents of files. Thread-safe."""

    def __init__(self, image: Image, inodes: Inodes) -> None:
        self._image = image
        self._inodes = inodes
        self._superblock = block = image.superblock
        table = block.fragment_table
        self._fragments = Lookup(image, table, block.fragments, _FRAGMENT.size) if table is not None else None
        self._zeros = bytes(image.superblock.block_size)
        self._fragment = lru_cache(maxsize=_FRAGMENTS_KEPT)(self._read_fragment)

    def identity(self, content: Content) -> tuple[int, int, int | None, int, bytes]:
        """Return a key that is equal only for files stored in the same blocks.

        It contains a digest of the block sizes instead of the sizes: the lists of many files can overlap, and be far
        larger in total than their table.
        """
        sizes = hashlib.sha256(self._block_list(content)).digest()
        return content.start, content.size, content.fragment, content.offset, sizes

    def _block_list(self, content: Content) -> bytes:
        """Return the stored sizes of a file's blocks, without a tail that is in a fragment."""
        whole, tail = divmod(content.size, self._superblock.block_size)
        return self._inodes.block_list(content, whole + (1 if tail and content.fragment is None else 0))

    def blocks(self, content: Content) -> Iterator[bytes]:
        """Yield a file's bytes in blocks of the file system's block size; the last one can be shorter."""
        place = self._superblock.start + content.start
        left = content.size
        for (stored,) in struct.iter_unpack("<I", self._block_list(content)):
            size = min(left, self._superblock.block_size)
            if stored == 0:
                yield self._zeros[:size]
            else:
                block = self._block(place, stored)
                if len(block) != size:
                    raise unknown(f"a block has {len(block)} bytes instead of {size}")
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
            raise unknown("a file extends beyond its fragment")
        return tail

    def _read_fragment(self, number: int) -> bytes:
        if self._fragments is None:
            raise unknown(f"there is no fragment {number}")
        start, stored, _unused = _FRAGMENT.unpack(self._fragments.entry(number))
        return self._block(self._superblock.start + start, stored)

    def _block(self, place: int, stored: int) -> bytes:
        size = stored & ~STORED_BLOCK
        if size > self._superblock.block_size:
            raise unknown(f"a block of {size} bytes is larger than the limit of {self._superblock.block_size}")
        if place < self._superblock.start + SUPERBLOCK_SIZE or place + size > self._superblock.inode_table:
            raise unknown("a block is outside of the data area")
        raw = self._image.read(place, size)
        if len(raw) != size:
            raise unknown("a block is truncated")
        return raw if stored & STORED_BLOCK else unpacker(self._superblock.compressor)(raw, self._superblock.block_size)

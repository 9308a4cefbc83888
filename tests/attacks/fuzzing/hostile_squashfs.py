"""A writer of squashfs file systems that lie: small files that claim to be large, tables that point into each other.

Squashfs 4.0 (Linux, fs/squashfs/squashfs_fs.h). What has to be found by its place lies in a first metadata block that
is not compressed; blocks behind it hold what is there in masses, and pack a thousand to one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.unit.delta.images import NONE, Part, sif

BLOCK = 8192
FOLDER, FILE, LINK, PIPE = 1, 2, 3, 6
EXTENDED_FOLDER, EXTENDED_FILE, EXTENDED_PIPE = 8, 9, 13


def metadata(content: bytes, size: int = BLOCK, *, packed: bool = True) -> bytes:
    """Content as metadata blocks of this size."""
    return b"".join(_blocks(content, size, packed=packed))


def _blocks(content: bytes, size: int, *, packed: bool) -> Iterator[bytes]:
    known: dict[bytes, bytes] = {}
    for at in range(0, len(content), size):
        piece = content[at : at + size]
        if not packed:
            yield struct.pack("<H", len(piece) | 0x8000) + piece
            continue
        if piece not in known:
            found = zlib.compress(piece, 9)
            known[piece] = struct.pack("<H", len(found)) + found
        yield known[piece]


def inode(kind: int, body: bytes, number: int = 1) -> bytes:
    """An inode of user and group 0."""
    return struct.pack("<HHHHII", kind, 0o755, 0, 0, 0, number) + body


def folder(size: int, block: int = 0, offset: int = 0, number: int = 1) -> bytes:
    """The inode of a folder whose list has so many bytes and lies there in the table of folders."""
    return inode(EXTENDED_FOLDER, struct.pack("<IIIIHHI", 2, size + 3, block, 0, 0, offset, 0xFFFFFFFF), number)


def file(
    size: int, start: int = 0, *sizes: int, fragment: int = 0xFFFFFFFF, offset: int = 0, xattrs: int = 0xFFFFFFFF
) -> bytes:
    """The inode of a file; sizes: of its blocks as stored."""
    body = struct.pack("<QQQIIII", start, size, 0, 1, fragment, offset, xattrs)
    return inode(EXTENDED_FILE, body + struct.pack(f"<{len(sizes)}I", *sizes))


def listing(*entries: tuple[bytes, int, int, int]) -> bytes:
    """The list of a folder: name, kind, and place of the inode (block, offset in it), a run for each."""
    return b"".join(
        struct.pack("<III", 0, block, 1) + struct.pack("<HhHH", offset, 0, kind, len(name) - 1) + name
        for name, kind, block, offset in entries
    )


@dataclass
class FileSystem:
    """What is written, in this order. xattrs: table of values, and count of lists, their index, …"""

    inodes: bytes
    folders: bytes = b""
    data: bytes = b""
    root: int = 0
    block_size: int = 1 << 17
    fragments: int = 0
    fragment_index: bytes = b""
    xattr_values: bytes = b""
    xattr_lists: int = 0
    xattr_index: bytes = b""
    count: int = 1
    changes: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        """The SIF. An index is given as the metadata blocks that it leads to; of one, all entries lead to it."""
        raw = bytearray(96) + self.data
        inode_table = len(raw)
        raw += self.inodes
        folder_table = len(raw)
        raw += self.folders
        fragment_table = self._index(raw, self.fragment_index, self.fragments, 512) if self.fragments else NONE
        ids = len(raw)
        raw += metadata(bytes(4), packed=False)
        id_table = len(raw)
        raw += struct.pack("<Q", ids)
        xattr_table = self._xattrs(raw) if self.xattr_lists else NONE
        fields = {"magic": 0x73717368, "inodes": self.count, "time": 0, "block_size": self.block_size}
        fields |= {
            "fragments": self.fragments,
            "compressor": 1,
            "log": 17,
            "flags": 0,
            "ids": 1,
            "major": 4,
            "minor": 0,
        }
        fields |= {"root": self.root, "used": len(raw), "id_table": id_table, "xattrs": xattr_table}
        fields |= {
            "inode_table": inode_table,
            "folders": folder_table,
            "fragment_table": fragment_table,
            "exports": NONE,
        }
        raw[:96] = struct.pack("<IIIIIHHHHHHQQQQQQQQ", *(fields | self.changes).values())
        return sif(Part(bytes(raw)))

    def _index(self, raw: bytearray, block: bytes, count: int, per_block: int) -> int:
        """Every entry of the index leads to the same block."""
        place = len(raw)
        raw += block
        index = len(raw)
        raw += struct.pack("<Q", place) * -(-count // per_block)
        return index

    def _xattrs(self, raw: bytearray) -> int:
        values = len(raw)
        raw += self.xattr_values
        place = len(raw)
        raw += self.xattr_index
        table = len(raw)
        raw += struct.pack("<QII", values, self.xattr_lists, 0)
        raw += struct.pack("<Q", place) * -(-self.xattr_lists // 512)
        return table

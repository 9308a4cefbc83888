"""A small writer of squashfs file systems and SIF files, after the formats' descriptions."""

from __future__ import annotations

import json
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

COMPRESSORS = {"gzip": 1, "xz": 4, "lz4": 5, "zstd": 6}
NONE = 0xFFFFFFFFFFFFFFFF
DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
PARTITION, DEFINITION, JSON = 0x4004, 0x4001, 0x4006


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compressor makes smaller, as the blocks of an image are."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same in every run


def packer(compressor: str) -> Callable[[bytes], bytes]:
    """The compressor. What claims to be zstd is not, as nobody here could read it; lz4 never finds any gain."""
    if compressor == "lz4":
        return lambda data: data
    if compressor == "xz":
        return lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32)
    return zlib.compress


@dataclass
class Squashfs:
    """A file system under construction. Each ``add_…`` writes blocks or inodes; ``build`` adds the tables."""

    block_size: int = 128 * 1024
    compressor: str = "gzip"
    data: bytearray = field(default_factory=lambda: bytearray(96))
    inodes: list[bytes] = field(default_factory=list)
    fragments: list[bytes] = field(default_factory=list)
    edges: set[int] = field(default_factory=lambda: {96})

    def add_block(self, stored: bytes) -> int:
        """Bytes as they lie in the file; the size to put into a block list, marked as not compressed."""
        self.data += stored
        self.edges.add(len(self.data))
        return len(stored) | 1 << 24

    def add_file(self, *blocks: bytes, extended: bool = False) -> None:
        """A file of whole blocks; an empty block is a hole."""
        start = len(self.data)
        sizes = [self.add_block(block) if block else 0 for block in blocks]
        self.add_file_inode(start, sizes, extended=extended)

    def add_file_inode(self, start: int, sizes: Sequence[int], *, extended: bool = False) -> None:
        size = len(sizes) * self.block_size
        if extended:
            body = struct.pack("<QQQIIII", start, size, 0, 1, 0xFFFFFFFF, 0, 0xFFFFFFFF)
        else:
            body = struct.pack("<IIII", start, 0xFFFFFFFF, 0, size)
        self.add_inode(9 if extended else 2, body + struct.pack(f"<{len(sizes)}I", *sizes))

    def add_tail(self, size: int) -> None:
        """A file smaller than a block, which lies in a fragment."""
        self.add_inode(2, struct.pack("<IIII", 0, 0, 0, size))

    def add_links(self) -> None:
        """Symbolic links, until the inode table is too large to join the block before it, as in real images."""
        for number in range(100):
            self.add_inode(3, struct.pack("<II", 1, 60) + noise(60, number))

    def add_inode(self, kind: int, body: bytes) -> None:
        self.inodes.append(struct.pack("<HHHHII", kind, 0o755, 0, 0, 0, len(self.inodes) + 1) + body)

    def add_fragment(self, stored: bytes) -> None:
        start = len(self.data)
        self.fragments.append(struct.pack("<QII", start, self.add_block(stored), 0))

    def build(self, **changes: int) -> bytes:
        """The file system. changes: fields of the superblock that shall lie."""
        raw = bytearray(self.data)
        fields = {"magic": 0x73717368, "inodes": len(self.inodes), "time": 0, "block_size": self.block_size}
        fields |= {"fragments": len(self.fragments), "compressor": COMPRESSORS[self.compressor]}
        fields |= {"log": self.block_size.bit_length() - 1, "flags": 0, "ids": 1, "major": 4, "minor": 0, "root": 0}
        inode_table = len(raw)
        raw += b"".join(self._metadata(b"".join(self.inodes)))
        directory_table = len(raw)
        places = []
        for block in self._metadata(b"".join(self.fragments)):
            places.append(len(raw))
            raw += block
        fragment_table = len(raw)
        raw += struct.pack(f"<{len(places)}Q", *places)
        id_table = len(raw)
        raw += bytes(8)
        self.edges |= {inode_table, directory_table, fragment_table, id_table, len(raw)}
        fields |= {"used": len(raw), "id_table": id_table, "xattrs": NONE, "inode_table": inode_table}
        fields |= {"directories": directory_table, "fragment_table": fragment_table, "exports": NONE}
        raw[:96] = struct.pack("<IIIIIHHHHHHQQQQQQQQ", *(fields | changes).values())
        return bytes(raw)

    def _metadata(self, content: bytes) -> list[bytes]:
        blocks = []
        for at in range(0, len(content), 8192):
            piece = content[at : at + 8192]
            packed = packer(self.compressor)(piece)
            smaller = len(packed) < len(piece)
            size = len(packed) if smaller else len(piece) | 0x8000
            blocks.append(struct.pack("<H", size) + (packed if smaller else piece))
        return blocks


@dataclass
class Part:
    """A data object of a SIF to be written. offset, size: what the descriptor shall say instead of the truth."""

    content: bytes
    kind: int = PARTITION
    file_system: int = 1
    purpose: int = 2
    offset: int | None = None
    size: int | None = None
    name: bytes = b"part"


def sif(*parts: Part, arch: bytes = b"02", total: int = 48, start: int = 4096, created: int = 1700000000) -> bytes:
    """A SIF as Apptainer lays it out: header, 48 descriptors, objects; partitions aligned to 4096 bytes."""
    header = struct.pack(
        "<32s10s3s3s16sqqqqqqqq",
        *(b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", arch, bytes(range(16))),
        *(created, created + 1, 48 - len(parts), total, start, 48 * DESCRIPTOR.size, 32176, 0),
    )
    data = bytearray(4096 + 48 * DESCRIPTOR.size)
    data[: len(header)] = header
    for number, part in enumerate(parts):
        if part.kind == PARTITION:
            data += bytes(-len(data) % 4096)
        offset = len(data) if part.offset is None else part.offset
        size = len(part.content) if part.size is None else part.size
        extra = struct.pack("<ii3s", part.file_system, part.purpose, arch) if part.kind == PARTITION else b""
        descriptor = DESCRIPTOR.pack(
            *(part.kind, True, number + 1, 0xF0000001, 0, offset, size, size, created, created, 0, 0, part.name, extra)
        )
        place = 4096 + number * DESCRIPTOR.size
        data[place : place + len(descriptor)] = descriptor
        data += part.content
    return bytes(data)


def image(*files: bytes, compressor: str = "gzip", created: int = 1700000000) -> bytes:
    """A SIF with a definition file and a squashfs of files of one block each."""
    system = Squashfs(compressor=compressor)
    for content in files:
        system.add_file(content)
    system.add_links()
    return sif(Part(b"Bootstrap: docker\n", kind=DEFINITION), Part(system.build()), created=created)


def with_metadata(attributes: object, content: bytes = b"no squashfs") -> bytes:
    """A SIF with what engines tell of an image without looking into it, and a partition of this content."""
    told = json.dumps({"data": {"attributes": attributes}, "type": "container"}).encode()
    return sif(Part(told, kind=JSON, name=b"inspect-metadata.json"), Part(content))

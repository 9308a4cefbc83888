"""The files in a SIF: the squashfs 4.0 tree in its primary system partition (Linux, fs/squashfs/dir.c).

Nothing is mounted, unpacked or run. Limits bound the memory and time that an image can take: a real image with a
million files passes, and reading a hostile one always ends.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from factory.io import plain
from factory.sif import SLOTS
from factory.sif.data import Data
from factory.sif.header import read_sif_header
from factory.sif.inodes import KINDS, Inode, Inodes
from factory.sif.metadata import Image, Table
from factory.sif.squashfs import BlocksUnknown, read_superblock, unknown

_RUN = struct.Struct("<III")  # entries minus one, block of their inodes, first inode's number
_NAME = struct.Struct("<HhHH")  # inode's offset, its number minus the first's, type, length of the name minus one
_MOST_IN_RUN = 256

_MOST_ENTRIES = 1_000_000
_LONGEST_PATH = 4096  # bytes, the limit of Linux
_ALL_LISTINGS = 64 << 20  # bytes of all folders' lists
_ALL_NAMES = 256 << 20  # bytes of memory for all paths and link targets, up to four per letter
_ALL_ATTRIBUTES = 256 << 20  # bytes of the extended attributes of all entries; many can share a list
_ATTRIBUTE = 64  # bytes of overhead per attribute
_SMALLEST_BLOCK = 4096
# The maximum ratio of uncompressed to compressed size. Only sparse files and extremely compressible ones (gzip reaches
# 1000) exceed it, and every byte takes time to read.
_MOST_GROWTH = 100
_ALWAYS_ALLOWED = 16 << 30  # bytes


class FilesUnknown(BlocksUnknown):
    """The files in an image cannot be read.

    It has no squashfs, uses a compressor other than gzip and xz, or has damaged tables; ``why`` says which.
    """


@dataclass(frozen=True, **SLOTS)
class Entry:
    """A name in the image. path: absolute, ``/`` for the root; bytes that are not UTF-8 as with ``os.fsdecode``.

    Hard links are entries with the same inode.
    """

    path: str
    inode: Inode


class Tree:
    """The entries of an image by path, each after its folder, and their contents. Created by ``open_tree``."""

    def __init__(self, name: str, entries: dict[str, Entry], data: Data) -> None:
        self._name = name
        self._data = data
        self.entries = entries

    def get(self, path: str) -> Entry | None:
        """Return the entry at an absolute path, without following symbolic links."""
        return self.entries.get(path)

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's contents in blocks of at most 1 MiB, holes as zeros; nothing for other kinds.

        Thread-safe. Raises FilesUnknown if its blocks are damaged or outside of the image.
        """
        if entry.inode.content is not None:
            with _naming(self._name):
                yield from self._data.blocks(entry.inode.content)

    def head(self, entry: Entry, size: int) -> bytes:
        """Return the first ``size`` bytes of a file, or all if it is shorter. Raises FilesUnknown."""
        found = bytearray()
        blocks = self.read(entry)
        while len(found) < size and (block := next(blocks, b"")):
            found += block
        return bytes(found[:size])

    def same_content(self, entry: Entry) -> tuple[object, ...]:
        """Return a key that is equal only for files stored in the same blocks."""
        content = entry.inode.content
        if content is None or content.size == 0:
            return ()
        with _naming(self._name):
            return self._data.identity(content)


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Read the tree of a SIF file. The file stays open until the context ends, so that contents can be read.

    Raises IntegrityFailure if it is not a SIF, FilesUnknown if its files cannot be read, OSError.
    """
    with plain.reading(path) as file:
        with _naming(path.name):
            tree = _read(file, path)
        yield tree


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn BlocksUnknown into FilesUnknown, with the image's name."""
    try:
        yield
    except FilesUnknown:
        raise
    except BlocksUnknown as error:
        raise FilesUnknown(f"the files in {name} cannot be read", why=error.why) from error


def _read(file: BinaryIO, path: Path) -> Tree:
    system = read_sif_header(file, file.seek(0, SEEK_END), path.name).primary_system
    if system is None:
        raise unknown("it has no primary system partition")
    if system.file_system != "squashfs":
        raise unknown(f"its file system is {system.file_system}, not squashfs")
    superblock = read_superblock(file, system.offset, system.size)
    if superblock.block_size < _SMALLEST_BLOCK:
        raise unknown(f"it claims blocks of {superblock.block_size} bytes")
    image = Image(file.fileno(), superblock)
    inodes = Inodes(image)
    entries = _Walk(image, inodes).entries()
    return Tree(path.name, entries, Data(image, inodes))


class _Walk:
    """Reads all folders, starting at the root, without recursion."""

    def __init__(self, image: Image, inodes: Inodes) -> None:
        superblock = image.superblock
        self._inodes = inodes
        self._listings = Table(image, superblock.directory_table)
        self._most_contents = max(_ALWAYS_ALLOWED, _MOST_GROWTH * (superblock.end - superblock.start))
        self._listed = self._named = self._contents = self._attributes = 0
        self._seen = {superblock.root}
        self._root = Entry("/", inodes.read(superblock.root))
        if self._root.inode.kind != "folder":
            raise unknown(f"its root is a {self._root.inode.kind}")

    def entries(self) -> dict[str, Entry]:
        """Return all entries, ordered by path."""
        found = {"/": self._root}
        folders = [self._root]
        while folders:
            for entry in self._enter(folders.pop()):
                if entry.path in found:
                    raise unknown("a folder lists a name twice")
                if len(found) >= _MOST_ENTRIES:
                    raise unknown(f"it has more than {_MOST_ENTRIES} entries")
                found[entry.path] = entry
                if entry.inode.kind == "folder":
                    folders.append(entry)
        return dict(sorted(found.items()))

    def _enter(self, folder: Entry) -> Iterator[Entry]:
        prefix = folder.path if folder.path == "/" else folder.path + "/"
        for name, reference, kind in self._list(*folder.inode.listing):
            inode = self._inodes.read(reference)
            if inode.kind != kind:
                raise unknown(f"a {inode.kind} is listed as a {kind}")
            path = prefix + name
            self._count(path, inode, reference)
            yield Entry(path, inode)

    def _list(self, reference: int, size: int) -> Iterator[tuple[str, int, str]]:
        """Yield the name, inode reference and kind of each entry of a folder."""
        if size == 0:
            return
        self._listed += size
        if self._listed > _ALL_LISTINGS:
            raise unknown(f"its folders list more than {_ALL_LISTINGS} bytes")
        raw = self._listings.at(reference).take(size)
        at = 0
        try:
            while at < size:
                more, block, _number = _RUN.unpack_from(raw, at)
                at += _RUN.size
                if more >= _MOST_IN_RUN:
                    raise unknown(f"a folder lists {more + 1} entries at once")
                for _ in range(more + 1):
                    offset, _number, kind, length = _NAME.unpack_from(raw, at)
                    start = at + _NAME.size
                    at = start + length + 1
                    if kind not in KINDS:
                        raise unknown(f"a folder lists an entry of type {kind}")
                    yield _checked(raw[start:at], length + 1), block << 16 | offset, KINDS[kind]
        except struct.error as error:
            raise unknown("a folder's list is truncated") from error

    def _count(self, path: str, inode: Inode, reference: int) -> None:
        """Count an entry against the limits."""
        if len(path) > _LONGEST_PATH:
            raise unknown(f"a path is longer than {_LONGEST_PATH} bytes")
        self._named += sys.getsizeof(path)
        self._attributes += sum(len(name) + len(value) + _ATTRIBUTE for name, value in inode.xattrs)
        if reference in self._seen:
            if inode.kind == "folder":
                raise unknown("a folder has two parents, or is inside itself")
        else:
            self._seen.add(reference)
            self._named += sys.getsizeof(inode.target)
            self._contents += inode.size
        if self._named > _ALL_NAMES:
            raise unknown(f"its names take more than {_ALL_NAMES} bytes")
        if self._attributes > _ALL_ATTRIBUTES:
            raise unknown(f"its extended attributes have more than {_ALL_ATTRIBUTES} bytes")
        if self._contents > self._most_contents:
            raise unknown(f"its files claim more than {self._most_contents} bytes")


def _checked(name: bytes, size: int) -> str:
    """Return a name, decoded. Raises BlocksUnknown for names that Linux cannot create."""
    if len(name) != size:
        raise unknown("a folder's list is truncated")
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise unknown(f"a folder lists the name {name!r}")
    return name.decode("utf-8", "surrogateescape")

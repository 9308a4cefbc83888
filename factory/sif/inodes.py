"""The inodes of squashfs 4.0: the kind of each entry and the location of its contents (Linux, fs/squashfs/inode.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from factory.sif import SLOTS
from factory.sif.metadata import Cursor, Image, Table, Xattrs, read_ids
from factory.sif.squashfs import NO_FRAGMENT, unknown

KINDS = {1: "folder", 2: "file", 3: "symlink", 4: "block", 5: "character", 6: "fifo", 7: "socket"}
_EXTENDED = 7  # added to a type: the inode has more fields, extended attributes among them

_HEADER = struct.Struct("<HHHHII")  # type, mode, user, group, time of change, number
_FOLDER = struct.Struct("<IIHHI")  # block, links, size, offset, parent
_EXTENDED_FOLDER = struct.Struct("<IIIIHHI")  # links, size, block, parent, index entries, offset, xattrs
_FILE = struct.Struct("<IIII")  # start, fragment, offset in it, size
_EXTENDED_FILE = struct.Struct("<QQQIIII")  # start, size, sparse, links, fragment, offset in it, xattrs
FOLDER_INDEX = struct.Struct("<III")  # after an extended folder: index, start, length of the name minus one
_PAIR = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
_NO_XATTRS = 0xFFFFFFFF
_LONGEST_TARGET = 4096  # bytes, the limit of Linux
_UNLISTED = 3  # bytes in a folder's size for "." and "..", which are not stored


@dataclass(frozen=True, **SLOTS)
class Content:
    """The location of a file's bytes. start: from the superblock; block_list: a reference into the inode table."""

    size: int
    start: int
    block_list: int
    fragment: int | None
    offset: int


@dataclass(frozen=True, **SLOTS)
class Inode:
    """An inode: an entry of the file system, independent of its names.

    kind: ``file``, ``folder``, ``symlink``, ``block`` and ``character`` (devices), ``fifo`` or ``socket``.
    mode: permission bits, up to 0o7777. mtime: seconds since 1970. size: bytes of a file, else 0.
    links: the stored number of names. target: of a symbolic link. device: major and minor number.
    xattrs: names and values, ordered. Bytes that are not UTF-8 are decoded as by ``os.fsdecode``.
    content: the location of a file's bytes. listing: the reference and size of a folder's list.
    """

    number: int
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    links: int = 1
    size: int = 0
    target: str = ""
    device: tuple[int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: Content | None = None
    listing: tuple[int, int] = (0, 0)


@dataclass(**SLOTS)
class Body:
    """The fields of an inode after its header."""

    links: int = 1
    xattrs: int = _NO_XATTRS
    size: int = 0
    target: str = ""
    device: tuple[int, int] | None = None
    content: Content | None = None
    listing: tuple[int, int] = (0, 0)
    index_entries: int = 0


class Fields(Protocol):
    """The source of an inode's bytes."""

    @property
    def reference(self) -> int:
        """The current position in the inode table."""

    def take(self, size: int, /) -> bytes:
        """Read exactly ``size`` bytes."""


class Header(NamedTuple):
    """The first fields of every inode. user, group: indexes into the table of users and groups."""

    type: int
    mode: int
    user: int
    group: int
    mtime: int
    number: int


def read_header(fields: Fields) -> Header:
    """Read the header of an inode."""
    return Header(*_HEADER.unpack(fields.take(_HEADER.size)))


def read_type(fields: Fields) -> int:
    """Read the type of an inode and skip the rest of its header."""
    return int.from_bytes(fields.take(_HEADER.size)[:2], "little")


def read_body(fields: Fields, kind: int) -> Body:
    """Read the fields after the header; a file's block list or an extended folder's index follows them."""
    extended = kind > _EXTENDED
    basic = kind - _EXTENDED if extended else kind
    if basic not in KINDS:
        raise unknown(f"the inode type {kind} does not exist")
    return _BODIES[basic](fields, extended)


class Inodes:
    """The inode table. Each inode is read once, even if it has several names."""

    def __init__(self, image: Image) -> None:
        self._table = Table(image, image.superblock.inode_table)
        self._ids = read_ids(image)
        self._xattrs = Xattrs(image)
        self._known: dict[int, Inode] = {}

    def read(self, reference: int) -> Inode:
        """Return the inode at a reference."""
        known = self._known.get(reference)
        if known is None:
            known = self._known[reference] = self._parse(self._table.at(reference))
        return known

    def block_list(self, content: Content, count: int) -> bytes:
        """Return the stored sizes of a file's first ``count`` blocks, four bytes each, 0 for a hole."""
        return self._table.at(content.block_list).take(4 * count)

    def _parse(self, cursor: Cursor) -> Inode:
        header = read_header(cursor)
        body = read_body(cursor, header.type)
        if max(header.user, header.group) >= len(self._ids):
            raise unknown(f"the user or group {max(header.user, header.group)} does not exist")
        return Inode(
            number=header.number,
            kind=KINDS[(header.type - 1) % _EXTENDED + 1],
            mode=header.mode & 0o7777,
            uid=self._ids[header.user],
            gid=self._ids[header.group],
            mtime=header.mtime,
            links=body.links,
            size=body.size,
            target=body.target,
            device=body.device,
            xattrs=() if body.xattrs == _NO_XATTRS else self._xattrs.read(body.xattrs),
            content=body.content,
            listing=body.listing,
        )


def _folder(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001 - all readers have this signature
    xattrs, entries = _NO_XATTRS, 0
    if extended:
        links, size, block, _parent, entries, offset, xattrs = _EXTENDED_FOLDER.unpack(
            cursor.take(_EXTENDED_FOLDER.size)
        )
    else:
        block, links, size, offset, _parent = _FOLDER.unpack(cursor.take(_FOLDER.size))
    return Body(links, xattrs, listing=(block << 16 | offset, max(0, size - _UNLISTED)), index_entries=entries)


def _file(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001
    links, xattrs = 1, _NO_XATTRS
    if extended:
        start, size, _sparse, links, fragment, offset, xattrs = _EXTENDED_FILE.unpack(cursor.take(_EXTENDED_FILE.size))
    else:
        start, fragment, offset, size = _FILE.unpack(cursor.take(_FILE.size))
    content = Content(size, start, cursor.reference, None if fragment == NO_FRAGMENT else fragment, offset)
    return Body(links, xattrs, size=size, content=content)


def _symlink(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001
    links, length = _PAIR.unpack(cursor.take(_PAIR.size))
    if length > _LONGEST_TARGET:
        raise unknown(f"a symbolic link of {length} bytes is longer than Linux allows")
    target = cursor.take(length)
    return Body(links, _xattrs(cursor, extended=extended), target=target.decode("utf-8", "surrogateescape"))


def _device(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001
    links, number = _PAIR.unpack(cursor.take(_PAIR.size))
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00  # Linux, new_decode_dev
    return Body(links, _xattrs(cursor, extended=extended), device=(major, minor))


def _pipe(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001
    (links,) = _NUMBER.unpack(cursor.take(_NUMBER.size))
    return Body(links, _xattrs(cursor, extended=extended))


def _xattrs(cursor: Fields, *, extended: bool) -> int:
    number: int = _NUMBER.unpack(cursor.take(_NUMBER.size))[0] if extended else _NO_XATTRS
    return number


_BODIES: dict[int, Callable[[Fields, bool], Body]] = {
    1: _folder, 2: _file, 3: _symlink, 4: _device, 5: _device, 6: _pipe, 7: _pipe
}  # fmt: skip

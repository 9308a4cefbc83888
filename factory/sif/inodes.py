"""The inodes of a squashfs 4.0: what each entry is, and where its contents lie (Linux, fs/squashfs/inode.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from factory.sif.metadata import Cursor, Image, Table, Xattrs, read_ids
from factory.sif.squashfs import NO_FRAGMENT, unknown

KINDS = {1: "folder", 2: "file", 3: "symlink", 4: "block", 5: "character", 6: "fifo", 7: "socket"}
_EXTENDED = 7  # added to a type: the inode has more fields, extended attributes among them

_HEADER = struct.Struct("<HHHHII")  # type, mode, user, group, time of change, number
_FOLDER = struct.Struct("<IIHHI")  # block, links, size, offset, parent
_EXTENDED_FOLDER = struct.Struct("<IIIIHHI")  # links, size, block, parent, index entries, offset, xattrs
_FILE = struct.Struct("<IIII")  # start, fragment, offset in it, size
_EXTENDED_FILE = struct.Struct("<QQQIIII")  # start, size, sparse, links, fragment, offset in it, xattrs
FOLDER_INDEX = struct.Struct("<III")  # behind an extended folder: index, start, length of the name less one
_PAIR = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
_NO_XATTRS = 0xFFFFFFFF
_LONGEST_TARGET = 4096  # bytes; Linux reads no longer ones
_UNLISTED = 3  # bytes that a folder's size counts for "." and "..", which are not stored


@dataclass(frozen=True, slots=True)
class Content:
    """Where a file's bytes lie. start: from the superblock; block_list: a reference into the inode table."""

    size: int
    start: int
    block_list: int
    fragment: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Inode:
    """What a squashfs stores of an entry, whatever names it has.

    kind: ``file``, ``folder``, ``symlink``, ``block`` and ``character`` (devices), ``fifo`` or ``socket``.
    mode: permission bits, up to 0o7777. mtime: seconds since 1970. size: bytes of a file, else 0.
    links: how many names it claims to have. target: of a symbolic link. device: major and minor number.
    xattrs: names with their values, ordered. Bytes that are not UTF-8 are kept as ``os.fsdecode`` keeps them.
    content and listing (reference and bytes of a folder's list) lead to what is read later.
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


@dataclass(slots=True)
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
    """Where an inode is read from."""

    @property
    def reference(self) -> int:
        """Where in the inode table that is."""

    def take(self, size: int, /) -> bytes:
        """Exactly ``size`` bytes more."""


class Header(NamedTuple):
    """What every inode begins with. user, group: numbers in the table of users and groups."""

    type: int
    mode: int
    user: int
    group: int
    mtime: int
    number: int


def read_header(fields: Fields) -> Header:
    """The beginning of an inode."""
    return Header(*_HEADER.unpack(fields.take(_HEADER.size)))


def read_type(fields: Fields) -> int:
    """The type of an inode; the rest of its header is passed over."""
    return int.from_bytes(fields.take(_HEADER.size)[:2], "little")


def read_body(fields: Fields, kind: int) -> Body:
    """The rest of an inode; a file's list of blocks and an extended folder's index come behind it."""
    extended = kind > _EXTENDED
    basic = kind - _EXTENDED if extended else kind
    if basic not in KINDS:
        raise unknown(f"there is no inode type {kind}")
    return _BODIES[basic](fields, extended)


class Inodes:
    """The inode table. An inode is read once, however many names it has."""

    def __init__(self, image: Image) -> None:
        self._table = Table(image, image.superblock.inode_table)
        self._ids = read_ids(image)
        self._xattrs = Xattrs(image)
        self._known: dict[int, Inode] = {}

    def read(self, reference: int) -> Inode:
        """The inode at a reference."""
        known = self._known.get(reference)
        if known is None:
            known = self._known[reference] = self._parse(self._table.at(reference))
        return known

    def block_list(self, content: Content, count: int) -> bytes:
        """The sizes of a file's first ``count`` blocks, four bytes each: as they are stored, 0 for a hole."""
        return self._table.at(content.block_list).take(4 * count)

    def _parse(self, cursor: Cursor) -> Inode:
        header = read_header(cursor)
        body = read_body(cursor, header.type)
        if max(header.user, header.group) >= len(self._ids):
            raise unknown(f"there is no user or group {max(header.user, header.group)}")
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


def _folder(cursor: Fields, extended: bool) -> Body:  # noqa: FBT001 - the signature of all of them
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
        raise unknown(f"a symbolic link of {length} bytes is longer than Linux reads")
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

"""The header of a SIF file: the objects in it and their offsets (SIF specification 1; sylabs/sif, pkg/sif).

The file is untrusted: each offset, size and count in it is checked against the file's real size before use.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from factory.errors import IntegrityFailure
from factory.sif.architecture import ARCHITECTURES, MAGIC, VERSION

_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_PARTITION = struct.Struct("<ii3s")  # the start of a partition's extra field
_SQUASHFS = b"hsqs"  # the magic number of a squashfs, little-endian
_MOST_DESCRIPTORS = 4096  # Apptainer writes 48
_FILE_SYSTEMS = {1: "squashfs", 2: "ext3", 3: "archive", 4: "raw", 5: "encrypted-squashfs"}
_PARTITION_OBJECT = 0x4004
_PRIMARY_SYSTEM = 2


@dataclass(frozen=True)
class SifObject:
    """One data object of a SIF. kind: its data type code, such as 0x4001 for a definition file; offsets in bytes."""

    kind: int
    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the object."""
        return self.offset + self.size


@dataclass(frozen=True)
class Partition(SifObject):
    """A file system in a SIF. file_system: ``squashfs``, ``ext3``, …; arch: as in SifHeader."""

    file_system: str
    arch: str
    primary: bool


@dataclass(frozen=True)
class SifHeader:
    """The header of a SIF.

    arch: a GOARCH name such as ``amd64``, or ``unknown``. created, modified: seconds since 1970.
    data_start: the offset of the first byte after header and descriptors. objects: ordered by offset.
    """

    arch: str
    id: bytes
    created: int
    modified: int
    data_start: int
    objects: tuple[SifObject, ...]

    @property
    def primary_system(self) -> Partition | None:
        """The partition with the container's root file system; None if there is none."""
        return next((part for part in self.objects if isinstance(part, Partition) and part.primary), None)


def read_sif_header(file: BinaryIO, size: int, name: str) -> SifHeader:
    """Read the header and the descriptors of an open SIF of ``size`` bytes. name: its name in errors.

    Raises IntegrityFailure if it is not a SIF, or if its offsets and sizes do not fit the file.
    """
    try:
        return _read(file, size)
    except _Unsound as unsound:
        raise IntegrityFailure(
            f"{name} is not a valid SIF file", why=str(unsound), fix="fetch or build the image again"
        ) from unsound


HEADER_SIZE = _HEADER.size  # bytes


def begins_like_sif(start: bytes) -> bool:
    """Return whether a file that starts with these bytes, at least ``HEADER_SIZE``, can be a SIF."""
    return start[32:42] == MAGIC


def require_runnable(file: BinaryIO, size: int, name: str) -> SifHeader:
    """Read the header of an open SIF, and the first bytes of its root file system: enough to see that it is an image.

    name: its name in errors. Raises IntegrityFailure like ``read_sif_header``, and if there is no root file system.
    """
    header = read_sif_header(file, size, name)
    system = header.primary_system
    why = ""
    if system is None:
        why = "it has no root file system"
    elif system.file_system == "squashfs":
        file.seek(system.offset)
        why = "" if file.read(len(_SQUASHFS)) == _SQUASHFS else "its root file system is not a squashfs"
    if why:
        raise IntegrityFailure(f"{name} is not a container image", why=why, fix="fetch or build the image again")
    return header


class _Unsound(Exception):
    """The file is not a valid SIF. The text says why."""


def _read(file: BinaryIO, size: int) -> SifHeader:
    file.seek(0)
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        raise _Unsound(f"it has {len(raw)} bytes, less than the header's {_HEADER.size}")
    _launch, magic, version, arch, identity, created, modified, _free, total, start, _used, _data, _length = (
        _HEADER.unpack(raw)
    )
    if magic != MAGIC:
        raise _Unsound("the SIF magic number is missing")
    if version != VERSION:
        raise _Unsound(f"its version is {_text(version)!r}, and only {_text(VERSION)!r} is supported")
    if not 0 <= total <= _MOST_DESCRIPTORS:
        raise _Unsound(f"it claims {total} descriptors")
    data_start = start + total * _DESCRIPTOR.size
    if not _HEADER.size <= start <= data_start <= size:
        raise _Unsound(f"its descriptors, bytes {start} to {data_start}, do not fit in the file's {size} bytes")
    file.seek(start)
    table = file.read(data_start - start)
    if len(table) != data_start - start:
        raise _Unsound("its descriptors are truncated")
    found = (_object(fields, size) for fields in _DESCRIPTOR.iter_unpack(table))
    objects = sorted((item for item in found if item is not None), key=lambda item: (item.offset, item.size))
    _check_places(objects, data_start)
    return SifHeader(_architecture(arch), identity, created, modified, data_start, tuple(objects))


def _object(fields: tuple[Any, ...], size: int) -> SifObject | None:
    kind, used, _id, _group, _link, offset, length, _padded, _created, _modified, _uid, _gid, name, extra = fields
    if not used:
        return None
    if offset < 0 or length < 0 or offset + length > size:
        raise _Unsound(f"an object of {length} bytes at offset {offset} does not fit in the file's {size} bytes")
    if kind != _PARTITION_OBJECT:
        return SifObject(kind, _text(name), offset, length)
    file_system, purpose, arch = _PARTITION.unpack_from(extra)
    return Partition(
        kind,
        _text(name),
        offset,
        length,
        file_system=_FILE_SYSTEMS.get(file_system, "unknown"),
        arch=_architecture(arch),
        primary=purpose == _PRIMARY_SYSTEM,
    )


def _check_places(objects: list[SifObject], data_start: int) -> None:
    if objects and objects[0].offset < data_start:
        raise _Unsound(f"an object at offset {objects[0].offset} overlaps the descriptors")
    for first, second in zip(objects, objects[1:]):
        if second.offset < first.end:
            raise _Unsound(f"objects overlap at offset {second.offset}")
    primaries = sum(isinstance(item, Partition) and item.primary for item in objects)
    if primaries > 1:
        raise _Unsound(f"it has {primaries} primary system partitions")


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _architecture(raw: bytes) -> str:
    return ARCHITECTURES.get(_text(raw), "unknown")

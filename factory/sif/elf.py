"""The headers of ELF files: for which processor they are, and which program loads them (elf(5))."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHH")  # the same in both classes: identification, type, machine
_BODY_64 = struct.Struct("<QQQIHHHHHH")  # after version: entry, program headers, section headers, flags, sizes, counts
_BODY_32 = struct.Struct("<IIIIHHHHHH")
_SEGMENT_64 = struct.Struct("<IIQQQQQQ")
_SEGMENT_32 = struct.Struct("<IIIIIIII")
_BIG_ENDIAN = _WIDE = 2  # in the identification: ELFDATA2MSB, ELFCLASS64
_AT = 24  # offset of the body
_INTERPRETER = 3  # PT_INTERP
_EXECUTABLE = (2, 3)  # ET_EXEC, ET_DYN
_MOST_SEGMENTS = 64
_LONGEST = 4096
_PROCESSORS = {
    3: "i386", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip


@dataclass(frozen=True)
class Elf:
    """An ELF program or library. machine: as images name it, such as ``amd64``, else ''.

    interpreter: the absolute path of the loader, '' for libraries and static programs.
    """

    machine: str
    interpreter: str = ""


def read_elf(head: bytes) -> Elf | None:
    """Return the headers of a program or library from its first bytes; None for anything else.

    Machines that are no processors, such as those of GPU code, are named ''. Damaged headers give no interpreter.
    """
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    identity, kind, machine = _HEADER.unpack_from(head)
    bits, order = identity[4], identity[5]
    if order == _BIG_ENDIAN:
        kind, machine = struct.unpack_from(">HH", head, 16)
        return Elf(_PROCESSORS.get(machine, "")) if kind in _EXECUTABLE else None
    if kind not in _EXECUTABLE:
        return None
    return Elf(_PROCESSORS.get(machine, ""), _interpreter(head, wide=bits == _WIDE))


def _interpreter(head: bytes, *, wide: bool) -> str:
    body, segment = (_BODY_64, _SEGMENT_64) if wide else (_BODY_32, _SEGMENT_32)
    try:
        _entry, table, _sections, _flags, _size, each, count, *_rest = body.unpack_from(head, _AT)
        for number in range(min(count, _MOST_SEGMENTS)):
            place = table + number * each
            if place > len(head):  # also what is too large for an offset
                break
            fields = segment.unpack_from(head, place)
            if fields[0] == _INTERPRETER:
                start, size = (fields[2], fields[5]) if wide else (fields[1], fields[4])
                name = head[start : start + min(size, _LONGEST)].rstrip(b"\0")
                return name.decode("utf-8", "surrogateescape") if name.startswith(b"/") and b"\0" not in name else ""
    except struct.error:
        pass
    return ""

"""A program in which the kernel refuses hard links or symbolic links, as some file systems do (seccomp(2)).

python refused_calls.py ERRNO link|symlink PROGRAM [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# The numbers are those of arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_CALLS: dict[str, dict[str, tuple[int, ...]]] = {
    "x86_64": {"link": (86, 265), "symlink": (88, 266)},
    "aarch64": {"link": (37,), "symlink": (36,)},
}
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # classic BPF
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse(call: str, number: int) -> None:
    """Let this system call fail with this errno from now on, in this process and its children."""
    calls = _CALLS[platform.machine()][call]
    instructions = [(_LOAD, 0, 0, 0)]  # the number of the call, seccomp_data.nr
    instructions += [(_IF_EQUAL, len(calls) - at, 0, one) for at, one in enumerate(calls)]
    instructions += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE | number)]
    raw = b"".join(struct.pack("<HBBI", *one) for one in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(instructions), raw)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse(sys.argv[2], getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - a program of the tests

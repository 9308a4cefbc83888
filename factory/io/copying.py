"""Copying of file contents inside the kernel, where it supports that."""

from __future__ import annotations

import errno
import os

_BLOCK = 128 * 1024  # bytes; measured to be faster than larger blocks, for which the kernel needs more free pages
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def copy_range(source: int, target: int, offset: int, size: int) -> int:
    """Copy size bytes between open files, to the target's position. Return how many; fewer only at the source's end.

    File systems with shared extents store the bytes once (copy_file_range(2)). Where the kernel, the file systems, or
    a container do not allow that, the bytes are read and written instead. Raises OSError.
    """
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, size - done, offset + done)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise
            count = 0
        if count == 0:  # the end, but some kernels also return 0 before it
            return done + _through_memory(source, target, offset + done, size - done)
        done += count
    return done


def _through_memory(source: int, target: int, offset: int, size: int) -> int:
    done = 0
    while done < size and (block := os.pread(source, min(size - done, _BLOCK), offset + done)):
        done += os.write(target, block)
    return done

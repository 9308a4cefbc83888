"""Copies of file contents that do not pass through this process, where the kernel can make them."""

from __future__ import annotations

import errno
import os

_BLOCK = 128 * 1024  # bytes; for small pieces the kernel finds free pages sooner, which was measured
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def copy_range(source: int, target: int, offset: int, size: int) -> int:
    """Copy bytes between open files, to the target's position; how many: fewer only where the source ends.

    File systems with shared extents store them once (copy_file_range(2)). Between two file systems, on an old kernel or
    where a container forbids it, they are read and written instead. Raises OSError.
    """
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, size - done, offset + done)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise
            count = 0
        if count == 0:  # the end; some kernels also give nothing where there is something
            return done + _through_memory(source, target, offset + done, size - done)
        done += count
    return done


def _through_memory(source: int, target: int, offset: int, size: int) -> int:
    done = 0
    while done < size and (block := os.pread(source, min(size - done, _BLOCK), offset + done)):
        done += os.write(target, block)
    return done

"""Chunk boundaries: at the edges of squashfs blocks, and by content where there are none.

An edge moves with its block, so two images with the same file get the same chunks for it, wherever it is stored.
Regions without edges (tables, other file systems, squashfs with an unsupported compressor) are cut after a pair of
bytes that occurs in compressed data every 16 KiB on average. It also moves with the data, and is found at the speed of
``memchr``.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import BinaryIO

from factory.sif.edges import block_edges, distinct
from factory.sif.header import SifHeader, read_sif_header
from factory.sif.squashfs import BlocksUnknown, read_superblock

LONGEST_CUT = 128 * 1024  # bytes; keeps blocks of Apptainer's default size whole, even uncompressed ones
_TINY = 2048  # smaller pieces join the one before: their digests would cost more than they save
_JOINED = 64 * 1024  # largest size of joined pieces
_SHORTEST_BY_CONTENT = 4096
_MARK = re.compile(rb"\xb5[\x40-\x43]")  # 4 of 65536 pairs


def known_edges(file: BinaryIO, size: int, name: str) -> array[int]:
    """Return the end offsets of the pieces of an open SIF of ``size`` bytes, ascending. The last one is ``size``.

    Only tables are read. name: the file's name in errors. Raises IntegrityFailure if it is not a valid SIF.
    """
    header = read_sif_header(file, size, name)
    found = _blocks(file, header)
    found.extend((header.data_start, size))
    for item in header.objects:
        found.extend((item.offset, item.end))
    return _joined(distinct(found))


def _blocks(file: BinaryIO, header: SifHeader) -> array[int]:
    system = header.primary_system
    if system is not None and system.file_system == "squashfs":
        try:
            return block_edges(file, read_superblock(file, system.offset, system.size))
        except BlocksUnknown:
            pass  # cut by content instead, which is less efficient but correct
    return array("Q")


def _joined(edges: array[int]) -> array[int]:
    """Drop the edges before tiny pieces, which then join the piece before them."""
    kept = array("Q")
    start = 0
    for edge, following in zip(edges, [*edges[1:], edges[-1] + _TINY]):
        if following - edge >= _TINY or edge - start >= _JOINED:
            kept.append(edge)
            start = edge
    return kept


class Cutter:
    """Cuts a file into chunks while it is read through a buffer."""

    def __init__(self, edges: array[int]) -> None:
        self._edges = edges
        self._position = 0

    def ends(self, buffer: bytearray, filled: int) -> Iterator[int]:
        """Yield the ends of the chunks in ``buffer[:filled]``, which starts where the last chunk ended.

        The bytes after the last end must be at the start of the next buffer, followed by more.
        """
        at = 0
        while (end := self._end(buffer, at, filled)) is not None:
            yield end
            self._position += end - at
            at = end

    def _end(self, buffer: bytearray, at: int, filled: int) -> int | None:
        place = bisect_right(self._edges, self._position)
        if place == len(self._edges):
            return None
        left = self._edges[place] - self._position
        end = at + min(left, LONGEST_CUT)
        if end > filled:
            return None
        if left > LONGEST_CUT:
            mark = _MARK.search(buffer, at + _SHORTEST_BY_CONTENT, end)
            return mark.end() if mark else end
        return end

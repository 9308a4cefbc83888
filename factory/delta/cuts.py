"""Where an image is cut into chunks: at the edges of squashfs blocks, and by content where there are none.

An edge moves with its block, so two images that hold the same file are cut the same way around it, wherever
it lies. Regions without edges (the tables, other file systems, squashfs packed by a compressor that we cannot
read) are cut behind a pair of bytes that compressed data shows every 16 KiB on average: it moves with the data
as well, and is found at the speed of ``memchr``.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import BinaryIO

from factory.sif.edges import block_edges, distinct
from factory.sif.header import SifHeader, read_sif_header
from factory.sif.squashfs import BlocksUnknown, read_superblock

LONGEST_CUT = 128 * 1024  # bytes; a block of Apptainer's default size stays whole even where it is not compressed
_TINY = 2048  # smaller pieces join the one before them: their digests would weigh more than what they save
_JOINED = 64 * 1024  # until so much is together
_SHORTEST_BY_CONTENT = 4096
_MARK = re.compile(rb"\xb5[\x40-\x43]")  # 4 of 65536 pairs


def known_edges(file: BinaryIO, size: int, name: str) -> array[int]:
    """The offsets at which pieces of an open SIF of ``size`` bytes end, ascending; the last one is ``size``.

    Only tables are read. name: what errors call the file. Raises IntegrityFailure when it is not a sound SIF.
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
            pass  # a worse cut, never a wrong one
    return array("Q")


def _joined(edges: array[int]) -> array[int]:
    """Drop the edges before tiny pieces, which then belong to the piece before them."""
    kept = array("Q")
    start = 0
    for edge, following in pairwise(chain(edges, [edges[-1] + _TINY])):
        if following - edge >= _TINY or edge - start >= _JOINED:
            kept.append(edge)
            start = edge
    return kept


class Cutter:
    """Cuts a file that passes through a buffer, piece by piece."""

    def __init__(self, edges: array[int]) -> None:
        self._edges = edges
        self._position = 0

    def ends(self, buffer: bytearray, filled: int) -> Iterator[int]:
        """The ends of the chunks in ``buffer[:filled]``, which begins where the last chunk ended.

        Bytes after the last end have to come again at the start of the next buffer, with more behind them.
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

"""Which bytes of one image are in another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from factory.delta.index import ChunkIndex


class Span(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of an image."""

    offset: int
    length: int


@dataclass(frozen=True)
class Overlap:
    """What making ``want`` out of ``have`` takes. reused, missing: bytes; together the size of ``want``.

    spans: where the missing bytes are in ``want``, ascending; neighbours are one span.
    """

    reused: int
    missing: int
    spans: tuple[Span, ...]


def compare(have: ChunkIndex, want: ChunkIndex) -> Overlap:
    """Tell which bytes of ``want`` have to be fetched by somebody who has ``have``."""
    known = {(chunk.digest, chunk.length) for chunk in have.chunks()}
    spans: list[Span] = []
    missing = 0
    for offset, length, digest in want.chunks():
        if (digest, length) in known:
            continue
        missing += length
        if spans and sum(spans[-1]) == offset:
            spans[-1] = Span(spans[-1].offset, spans[-1].length + length)
        else:
            spans.append(Span(offset, length))
    return Overlap(want.size - missing, missing, tuple(spans))

"""Which bytes of an image are in others, and what is left to fetch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from factory.delta.index import DIGEST_SIZE, ChunkIndex


class Span(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of an image."""

    offset: int
    length: int


class Piece(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of the wanted image.

    They are in the image number ``seed`` from byte ``at`` on; seed None: in none of them.
    """

    offset: int
    length: int
    seed: int | None
    at: int


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
    spans = tuple(Span(piece.offset, piece.length) for piece in match(want, [have]) if piece.seed is None)
    missing = sum(span.length for span in spans)
    return Overlap(want.size - missing, missing, spans)


def match(want: ChunkIndex, seeds: Sequence[ChunkIndex]) -> tuple[Piece, ...]:
    """Cover ``want`` with pieces of the seeds, in order and without gaps; earlier seeds are preferred.

    Chunks that follow each other in a seed become one piece.
    """
    return tuple(_joined(_placed(want, seeds)))


def coalesced(pieces: Iterable[Piece], gap: int) -> tuple[Piece, ...]:
    """The same cover, but what lies between two missing pieces and is shorter than ``gap`` bytes is missing, too.

    To fetch so little more costs less than to ask twice.
    """
    result: list[Piece] = []
    last = -1  # the number of the last missing piece in the result
    for piece in pieces:
        if piece.seed is None:
            if last >= 0 and piece.offset - (result[last].offset + result[last].length) < gap:
                del result[last + 1 :]
                result[last] = Piece(result[last].offset, piece.offset + piece.length - result[last].offset, None, 0)
                continue
            last = len(result)
        result.append(piece)
    return tuple(result)


def _placed(want: ChunkIndex, seeds: Sequence[ChunkIndex]) -> Iterator[Piece]:
    """One piece for each chunk. Where the seed that gave the last chunk goes on alike, it gives the next one."""
    wanted = {chunk.digest for chunk in want.chunks()}
    known: dict[bytes, tuple[int, int]] = {}  # the first place of a digest: seed, number of the chunk in it
    for seed, have in enumerate(seeds):
        for place in range(len(have.lengths)):
            if (digest := _digest(have, place)) in wanted:
                known.setdefault(digest, (seed, place))
    offsets = [array("Q", accumulate(have.lengths, initial=0)) for have in seeds]
    seed, place = 0, -1
    for chunk in want.chunks():
        following = place + 1
        if not (
            place >= 0 and following < len(seeds[seed].lengths) and _digest(seeds[seed], following) == chunk.digest
        ):
            seed, following = known.get(chunk.digest, (seed, -1))
        place = following
        if place >= 0 and seeds[seed].lengths[place] == chunk.length:
            yield Piece(chunk.offset, chunk.length, seed, offsets[seed][place])
        else:
            place = -1
            yield Piece(chunk.offset, chunk.length, None, 0)


def _digest(index: ChunkIndex, place: int) -> bytes:
    return index.digests[place * DIGEST_SIZE : (place + 1) * DIGEST_SIZE]


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours that follow each other in their seed, or are all missing, as one piece."""
    last = next(pieces, None)
    if last is None:
        return
    for piece in pieces:
        follows = piece.seed is None or piece.at == last.at + last.length
        if piece.seed == last.seed and follows:
            last = Piece(last.offset, last.length + piece.length, last.seed, last.at)
        else:
            yield last
            last = piece
    yield last

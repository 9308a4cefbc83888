"""Which bytes of an image are available in other images, and which must be fetched."""

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

    seed: the number of an image that has them, starting at byte ``at``; None if there is none.
    """

    offset: int
    length: int
    seed: int | None
    at: int


@dataclass(frozen=True)
class Overlap:
    """The cost of making ``want`` from ``have``. reused, missing: bytes, whose sum is the size of ``want``.

    spans: the missing ranges of ``want``, ascending; adjacent ranges are merged.
    """

    reused: int
    missing: int
    spans: tuple[Span, ...]


def compare(have: ChunkIndex, want: ChunkIndex) -> Overlap:
    """Return which bytes of ``want`` a client that has ``have`` must fetch."""
    spans = tuple(Span(piece.offset, piece.length) for piece in match(want, [have]) if piece.seed is None)
    missing = sum(span.length for span in spans)
    return Overlap(want.size - missing, missing, spans)


def match(want: ChunkIndex, seeds: Sequence[ChunkIndex]) -> tuple[Piece, ...]:
    """Cover ``want`` with pieces of the seeds, in order and without gaps. Earlier seeds are preferred.

    Consecutive chunks of a seed become one piece.
    """
    return tuple(_joined(_placed(want, seeds)))


def coalesced(pieces: Iterable[Piece], gap: int) -> tuple[Piece, ...]:
    """Return the same cover, but with missing pieces less than ``gap`` bytes apart merged.

    Fetching a little more costs less than another request.
    """
    result: list[Piece] = []
    last = -1  # index of the last missing piece in the result
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
    """Yield one piece per chunk. The seed of the last chunk is preferred if its next chunk matches, too."""
    wanted = {chunk.digest for chunk in want.chunks()}
    known: dict[bytes, tuple[int, int]] = {}  # first occurrence of a digest: seed, number of the chunk in it
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
    """Merge adjacent pieces that are also adjacent in their seed, or are all missing."""
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

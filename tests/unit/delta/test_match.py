from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from factory.delta.index import ChunkIndex, index_image
from factory.delta.match import Overlap, Piece, Span, coalesced, compare, match
from factory.oci.digest import Digest
from tests.unit.delta.images import image, noise


def index(*chunks: tuple[str, int]) -> ChunkIndex:
    lengths = tuple(length for _, length in chunks)
    return ChunkIndex(sum(lengths), Digest.of(b""), lengths, b"".join(name.encode() * 16 for name, _ in chunks))


def test_an_image_misses_nothing_of_itself() -> None:
    one = index(("a", 10), ("b", 20))
    assert compare(one, one) == Overlap(reused=30, missing=0, spans=())


def test_an_image_that_shares_nothing_is_one_missing_span() -> None:
    assert compare(index(("a", 10)), index(("b", 10), ("c", 20))) == Overlap(0, 30, (Span(0, 30),))


def test_missing_neighbours_are_one_span_and_others_are_not() -> None:
    want = index(("x", 1), ("a", 10), ("y", 2), ("z", 3), ("b", 20), ("x", 1))
    assert compare(index(("b", 20), ("a", 10)), want) == Overlap(30, 7, (Span(0, 1), Span(11, 5), Span(36, 1)))


def test_a_digest_with_another_length_is_not_the_same_chunk() -> None:
    assert compare(index(("a", 10)), index(("a", 11))).reused == 0


def test_a_changed_file_costs_its_own_blocks_and_the_tables(tmp_path: Path) -> None:
    files = [noise(30_000 + number, number) for number in range(40)]
    old, new = tmp_path / "old.sif", tmp_path / "new.sif"
    old.write_bytes(image(*files))
    new.write_bytes(image(*files[:20], noise(31_111, 99), *files[20:], created=1800000000))
    found = compare(index_image(old), index_image(new))
    headers = 45_000  # those of the SIF, and the tables
    assert 31_111 < found.missing < 31_111 + headers
    assert len(found.spans) == 3  # headers, the file, tables


@given(*[st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3))).map(lambda chunks: index(*chunks))] * 2)
def test_reused_and_missing_bytes_make_up_the_image(have: ChunkIndex, want: ChunkIndex) -> None:
    found = compare(have, want)
    assert found.reused + found.missing == want.size
    assert sum(span.length for span in found.spans) == found.missing
    ends = [span.offset + span.length for span in found.spans]
    assert all(end < span.offset for end, span in zip(ends, found.spans[1:], strict=False))
    assert not ends or ends[-1] <= want.size


chunks = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3))).map(lambda found: index(*found))


def names(index_: ChunkIndex) -> bytes:
    """Each byte of the image as the name of its chunk, with its place in the chunk."""
    return b"".join(bytes([digest[0], at]) for _, length, digest in index_.chunks() for at in range(length))


@given(chunks, st.lists(chunks, max_size=3), st.integers(0, 5))
def test_pieces_cover_the_image_in_order_and_name_bytes_that_are_its_own(
    want: ChunkIndex, seeds: list[ChunkIndex], gap: int
) -> None:
    for pieces in (match(want, seeds), coalesced(match(want, seeds), gap)):
        assert [piece.offset for piece in pieces] == [
            sum(piece.length for piece in pieces[:number]) for number in range(len(pieces))
        ]
        assert sum(piece.length for piece in pieces) == want.size
        for offset, length, seed, at in pieces:
            if seed is not None:
                wanted = names(want)[2 * offset : 2 * (offset + length)]
                assert names(seeds[seed])[2 * at : 2 * (at + length)] == wanted


def test_the_seed_of_the_last_chunk_is_preferred_if_it_continues() -> None:
    first, second = index(("z", 1), ("b", 9)), index(("a", 5), ("b", 9), ("c", 7))
    assert match(index(("a", 5), ("b", 9), ("c", 7)), [first, second]) == (Piece(0, 21, 1, 0),)


def test_earlier_seeds_are_preferred() -> None:
    assert match(index(("a", 5)), [index(("x", 2), ("a", 5)), index(("a", 5))]) == (Piece(0, 5, 0, 2),)


def test_small_reused_pieces_between_missing_ones_are_fetched_with_them() -> None:
    pieces = (Piece(0, 5, None, 0), Piece(5, 3, 0, 9), Piece(8, 2, None, 0), Piece(10, 9, 0, 1), Piece(19, 1, None, 0))
    assert coalesced(pieces, 3) == pieces
    assert coalesced(pieces, 4) == (Piece(0, 10, None, 0), *pieces[3:])
    assert coalesced(pieces, 10) == (Piece(0, 20, None, 0),)


def test_small_reused_pieces_at_either_end_are_not_fetched() -> None:
    pieces = (Piece(0, 1, 0, 0), Piece(1, 5, None, 0), Piece(6, 1, 0, 6))
    assert coalesced(pieces, 100) == pieces

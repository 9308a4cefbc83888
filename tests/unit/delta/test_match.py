from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from factory.delta.index import ChunkIndex, index_image
from factory.delta.match import Overlap, Span, compare
from factory.digest import Digest
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

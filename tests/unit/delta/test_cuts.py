from __future__ import annotations

import io
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.delta.cuts import LONGEST_CUT, Cutter, known_edges
from factory.errors import IntegrityFailure
from tests.unit.delta.images import DEFINITION, Part, Squashfs, image, noise, sif

KB = 1024


def pieces(data: bytes, room: int = 1 << 20) -> list[bytes]:
    """Cut a whole image that arrives in blocks of ``room`` bytes."""
    cutter = Cutter(known_edges(io.BytesIO(data), len(data), "image.sif"))
    found, buffer = [], bytearray()
    for start in range(0, len(data), room):
        buffer += data[start : start + room]
        at = 0
        for end in cutter.ends(buffer, len(buffer)):
            found.append(bytes(buffer[at:end]))
            at = end
        del buffer[:at]
    assert not buffer
    return found


def test_each_block_of_the_primary_system_is_a_piece() -> None:
    files = [noise(size * KB, size) for size in (5, 100, 50, 20)]
    data = image(*files)
    assert b"".join(pieces(data)) == data
    assert set(files) <= set(pieces(data))


def test_a_file_before_others_does_not_change_how_they_are_cut() -> None:
    files = [noise(size * KB, size) for size in (5, 100, 50, 20)]
    cut = pieces(image(noise(7001, 99), *files))
    assert set(files) <= set(cut)


def test_tiny_blocks_join_the_piece_before_them() -> None:
    large, small = noise(30 * KB, 1), [noise(1000, number) for number in range(3)]
    after = noise(10 * KB, 2)
    assert {large + b"".join(small), after} <= set(pieces(image(large, *small, after)))


def test_a_run_of_tiny_blocks_is_joined_up_to_a_limit() -> None:
    cut = pieces(image(*(noise(1000, number) for number in range(500))))
    assert max(len(piece) for piece in cut) < 66 * KB
    assert len(cut) < 15


def test_data_outside_of_the_file_system_is_cut_at_its_edges() -> None:
    definition, system = noise(5 * KB, 1), Squashfs()
    system.add_file(noise(9 * KB, 2))
    system.add_links()
    signature = noise(6 * KB, 3)
    data = sif(Part(definition, kind=DEFINITION), Part(system.build()), Part(signature, kind=0x4005))
    assert signature in pieces(data)
    assert noise(9 * KB, 2) in pieces(data)


@pytest.mark.parametrize("room", [1000, 4096, 100_001])
def test_the_size_of_reads_does_not_move_a_cut(room: int) -> None:
    data = sif(Part(noise(900 * KB), file_system=2))
    assert pieces(data, room) == pieces(data)


def test_a_file_system_without_edges_is_cut_by_its_content() -> None:
    inside = noise(3000 * KB, 7)
    first = pieces(sif(Part(inside, file_system=2)))
    moved = pieces(sif(Part(noise(12_345, 8) + inside, file_system=2)))
    shared = sum(len(piece) for piece in set(first) & set(moved))
    assert shared > 0.93 * len(inside)
    assert 10 * KB < len(inside) / len(first) < 30 * KB


def test_squashfs_with_an_unsupported_compressor_is_cut_by_content() -> None:
    files = [noise(100 * KB, number) for number in range(30)]
    first, moved = pieces(image(*files, compressor="zstd")), pieces(image(noise(7001, 99), *files, compressor="zstd"))
    assert not set(files) & set(first)
    assert sum(len(piece) for piece in set(first) & set(moved)) > 0.9 * 3000 * KB


def test_content_without_any_mark_is_cut_at_the_longest_length() -> None:
    cut = pieces(sif(Part(bytes(1000 * KB), file_system=2)))
    assert max(len(piece) for piece in cut) == LONGEST_CUT


def test_a_damaged_file_system_is_still_cut() -> None:
    data = sif(Part(b"hsqs" + noise(300 * KB)))
    assert b"".join(pieces(data)) == data


def test_what_is_not_a_sif_is_refused() -> None:
    with pytest.raises(IntegrityFailure, match=r"image\.sif is not a valid SIF file"):
        known_edges(io.BytesIO(b"hello"), 5, "image.sif")


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=9), st.integers(1, 300_000))
def test_any_edges_and_any_reads_give_pieces_that_cover_the_file(lengths: list[int], room: int) -> None:
    ends = array("Q", (sum(lengths[: place + 1]) for place in range(len(lengths))))
    data = noise(ends[-1])
    cutter = Cutter(ends)
    cuts, base, buffer = [], 0, bytearray()
    for start in range(0, len(data), room):
        buffer += data[start : start + room]
        end = 0
        for end in cutter.ends(buffer, len(buffer)):
            cuts.append(base + end)
        del buffer[:end]
        base += end
    assert not buffer
    assert set(ends) <= set(cuts)
    assert all(0 < second - first <= LONGEST_CUT for first, second in zip([0, *cuts], cuts, strict=False))

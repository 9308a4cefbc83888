from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.sif import edges as edges_module
from factory.sif.edges import block_edges
from factory.sif.squashfs import BlocksUnknown, read_superblock
from tests.unit.delta.images import Squashfs, noise

BEFORE = 1000  # bytes in the file ahead of the file system


def edges(data: bytes) -> list[int]:
    """The edges as they count within the file system."""
    file = io.BytesIO(noise(BEFORE) + data + b"after")
    return [edge - BEFORE for edge in block_edges(file, read_superblock(file, BEFORE, len(data)))]


def sample(compressor: str = "gzip") -> Squashfs:
    system = Squashfs(compressor=compressor)
    system.add_file(noise(5000, 1), noise(70000, 2))
    system.add_tail(100)
    system.add_file(noise(3000, 3), b"", noise(9000, 4), extended=True)
    system.add_fragment(noise(2000, 5))
    system.add_fragment(noise(2500, 6))
    return system


@pytest.mark.parametrize("compressor", ["gzip", "xz"])
def test_edges_are_where_blocks_fragments_and_tables_begin_and_end(compressor: str) -> None:
    system = sample(compressor)
    data = system.build()
    assert edges(data) == sorted(system.edges)


def test_a_superblock_leads_to_the_tables() -> None:
    data = sample("xz").build()
    found = read_superblock(io.BytesIO(data), 0, len(data))
    assert (found.compressor, found.block_size, found.inodes, found.fragments) == ("xz", 131072, 3, 2)
    assert (found.start, found.end) == (0, len(data))


def test_tables_of_many_metadata_blocks_are_read_to_their_end() -> None:
    system = Squashfs()
    for number in range(1200):  # 48 kB of inodes, 19 kB of fragment entries
        system.add_file(noise(10 + number % 7, number), noise(11, number))
        system.add_fragment(noise(10, number))
    data = system.build()
    assert edges(data) == sorted(system.edges)


def test_inodes_that_are_not_files_are_stepped_over() -> None:
    system = Squashfs()
    system.add_inode(1, bytes(16))
    system.add_inode(3, struct.pack("<II", 1, 5) + b"there")
    for kind in (4, 5):
        system.add_inode(kind, bytes(8))
    for kind in (6, 7):
        system.add_inode(kind, bytes(4))
    index = struct.pack("<III", 0, 0, 2) + b"abc"
    system.add_inode(8, struct.pack("<IIIIHHI", 2, 300, 0, 1, 2, 0, 0) + index * 2)
    system.add_inode(10, struct.pack("<II", 1, 5) + b"there" + bytes(4))
    for kind in (11, 12):
        system.add_inode(kind, bytes(12))
    for kind in (13, 14):
        system.add_inode(kind, bytes(8))
    system.add_file(noise(777))
    data = system.build()
    assert edges(data) == sorted(system.edges)
    assert 96 + 777 in system.edges


def test_holes_take_no_memory() -> None:
    system = Squashfs(block_size=4096)
    start = len(system.data)
    last = system.add_block(noise(500))
    system.add_file_inode(start, [0] * 200_000 + [last], extended=True)
    assert edges(system.build()) == sorted(system.edges)


def test_two_files_of_the_same_content_share_their_edges() -> None:
    system = Squashfs()
    system.add_file(noise(500), noise(600))
    system.add_file_inode(96, [500 | 1 << 24, 600 | 1 << 24])
    assert edges(system.build()) == sorted(system.edges)


def lying(**changes: int) -> bytes:
    return sample().build(**changes)


def with_inode(kind: int, body: bytes) -> bytes:
    system = Squashfs()
    system.add_file(noise(500))
    system.add_inode(kind, body)
    return system.build()


def with_blocks(start: int, *sizes: int) -> bytes:
    system = Squashfs()
    system.add_file(noise(500))
    system.add_file_inode(start, sizes, extended=True)
    return system.build()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hsqs", "it is too small for a superblock"),
        (lying(magic=0), "it is not squashfs 4.0"),
        (lying(major=3), "it is not squashfs 4.0"),
        (lying(used=1 << 60), "its tables do not fit into it"),
        (lying(inode_table=95), "its tables do not fit into it"),
        (lying(directories=100), "its tables do not fit into it"),
        (lying(fragment_table=100), "its tables do not fit into it"),
        (lying(exports=1 << 63), "its tables do not fit into it"),
        (lying(block_size=0), "it claims blocks of 0 bytes"),
        (lying(block_size=1 << 30), "it claims blocks of 1073741824 bytes"),
        (lying(inodes=0xFFFFFFFF), "its inode table is truncated"),
        (lying(fragments=0xFFFFFFFF), "it claims 4294967295 fragment blocks"),
        (lying(fragments=3), "its fragment table is truncated"),
        (lying(fragments=999_999), "its fragment table is truncated"),
        (lying(inode_table=96), "a metadata block claims"),
        (with_inode(0, b""), "the inode type 0 does not exist"),
        (with_inode(15, b""), "the inode type 15 does not exist"),
        (
            with_inode(3, struct.pack("<II", 1, 0xFFFFFFFF)),
            "a symbolic link of 4294967295 bytes is longer than Linux allows",
        ),
        (with_inode(9, struct.pack("<QQQIIII", 96, 1 << 63, 0, 1, 0, 0, 0)), "its inode table is truncated"),
        (with_blocks(0, 10), "a block begins at 0, in the superblock"),
        (with_blocks(1 << 63, 10), "a block ends at 9223372036854775818, after the data"),
        (with_blocks(96, 501), "a block ends at 597, after the data"),
        (with_blocks(96, 131073), "a block of 131073 bytes is larger than the limit of 131072"),
    ],
)
def test_tables_that_do_not_hold_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(BlocksUnknown) as unknown:
        edges(data)
    assert unknown.value.why.startswith(why)


def test_a_compressor_outside_of_the_standard_library_is_named() -> None:
    with pytest.raises(BlocksUnknown, match="compressed with zstd"):
        edges(sample("zstd").build())


def test_tables_stored_without_compression_are_read_whatever_the_compressor_is() -> None:
    system = sample("lz4")
    assert edges(system.build()) == sorted(system.edges)


@pytest.mark.parametrize("compressor", ["gzip", "xz"])
def test_a_damaged_metadata_block_is_refused(compressor: str) -> None:
    system = sample(compressor)
    for _ in range(50):
        system.add_tail(1)
    data = bytearray(system.build())
    at = read_superblock(io.BytesIO(data), 0, len(data)).inode_table
    data[at + 2 : at + 12] = bytes(10)
    with pytest.raises(BlocksUnknown, match="a block is damaged"):
        edges(bytes(data))


def test_an_inode_table_that_unpacks_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "_LARGEST_INODE_TABLE", 100_000)
    system = Squashfs()
    for _ in range(10_000):
        system.add_tail(1)
    with pytest.raises(BlocksUnknown, match="its inode table is longer than 100000 bytes"):
        edges(system.build())


def test_more_blocks_than_an_honest_image_has_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "MOST_BLOCKS", 50)
    system = Squashfs()
    system.add_file(*(noise(10, number) for number in range(60)))
    with pytest.raises(BlocksUnknown, match="it has more than 50 blocks"):
        edges(system.build())


DAMAGED = sample().build()


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 95) | st.integers(len(DAMAGED) - 300, len(DAMAGED)), st.binary(max_size=9)),
        min_size=1,
    )
)
def test_any_damage_gives_edges_within_the_file_system_or_says_that_they_are_unknown(
    damage: list[tuple[int, bytes]],
) -> None:
    data = bytearray(DAMAGED)
    for at, new in damage:
        data[at : at + len(new)] = new
    try:
        found = edges(bytes(data))
    except BlocksUnknown:
        return
    assert all(0 <= edge <= len(data) for edge in found)
    assert found == sorted(set(found))

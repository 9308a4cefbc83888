from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.delta import index
from factory.delta.index import ChunkIndex, index_image
from factory.errors import IntegrityFailure
from factory.io.progress import Silent
from factory.oci.digest import Digest
from tests.unit.delta.images import Part, image, noise, sif

IMAGE = image(*(noise(20_000 + number, number) for number in range(40)), noise(50))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "image.sif"
    written.write_bytes(IMAGE)
    return written


def test_the_chunks_cover_the_image_and_carry_the_digests_of_their_bytes(path: Path) -> None:
    at = 0
    for chunk in index_image(path).chunks():
        assert chunk.offset == at
        assert chunk.digest == hashlib.sha256(IMAGE[at : at + chunk.length]).digest()[:16]
        at += chunk.length
    assert at == len(IMAGE)


def test_the_digest_of_the_whole_image_comes_with_the_chunks(path: Path) -> None:
    made = index_image(path)
    assert (made.digest, made.size) == (Digest.of(IMAGE), len(IMAGE))


@pytest.mark.parametrize("read", [999, 131_072, 150_000])
def test_the_size_of_reads_does_not_change_the_index(path: Path, monkeypatch: pytest.MonkeyPatch, read: int) -> None:
    wanted = index_image(path)
    monkeypatch.setattr(index, "_READ", read)
    assert index_image(path) == wanted


def test_an_index_takes_less_than_a_thousandth_of_its_image(path: Path) -> None:
    assert len(index_image(path).encode()) < len(IMAGE) / 900
    path.write_bytes(sif(Part(noise(2_000_000), file_system=2)))
    assert len(index_image(path).encode()) < 0.002 * 2_000_000


def test_progress_counts_every_byte_once(path: Path) -> None:
    class Counting(Silent):
        total: int | None = 0
        done = 0
        ended = 0

        def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:  # noqa: ARG002
            assert label == "index image.sif"
            self.total = total

        def advance(self, count: int) -> None:
            self.done += count

        def end(self) -> None:
            self.ended += 1

    seen = Counting()
    index_image(path, seen)
    assert (seen.total, seen.done, seen.ended) == (len(IMAGE), len(IMAGE), 1)


class Changing(Silent):
    """Plays a process that writes the image while it is read."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:  # noqa: ARG002
        self.path.write_bytes(self.content)


@pytest.mark.parametrize("content", [IMAGE[:-1], IMAGE[:100_000], b"", IMAGE + b"x", IMAGE + noise(200_000)])
def test_an_image_that_changes_its_size_while_it_is_read_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(IntegrityFailure, match=r"image\.sif changed while it was being read"):
        index_image(path, Changing(path, content))


def test_a_file_that_is_not_a_sif_is_refused_by_its_name(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(IntegrityFailure, match=r"image\.sif is not a valid SIF file"):
        index_image(path)


@st.composite
def indexes(draw: st.DrawFn) -> ChunkIndex:
    lengths = tuple(draw(st.lists(st.integers(1, index.LONGEST_CHUNK), max_size=20)))
    digests = draw(st.binary(min_size=16 * len(lengths), max_size=16 * len(lengths)))
    return ChunkIndex(sum(lengths), Digest.of(digests), lengths, digests)


@given(indexes())
def test_an_index_reads_back_as_it_was_written(one: ChunkIndex) -> None:
    assert ChunkIndex.decode(one.encode()) == one


def test_the_encoding_is_the_documented_one() -> None:
    digest = Digest.of(b"abc")
    encoded = ChunkIndex(3, digest, (1, 2), b"A" * 16 + b"B" * 16).encode()
    assert encoded == (
        b"SFCHUNKS" + b"\1\0" + b"\x10\0" + b"\2\0\0\0" + b"\3\0\0\0\0\0\0\0" + bytes.fromhex(digest.hex)
        + b"\1\0\0\0" + b"\2\0\0\0" + b"A" * 16 + b"B" * 16
    )  # fmt: skip


GOOD = ChunkIndex(300, Digest.of(b""), (100, 200), bytes(range(32))).encode()


def changed(at: int, new: bytes) -> bytes:
    return GOOD[:at] + new + GOOD[at + len(new) :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it ends after 0 bytes"),
        (GOOD[:55], "it ends after 55 bytes"),
        (GOOD[:-1], "it has 95 bytes, but 2 chunks take 96"),
        (GOOD + b"\0", "it has 97 bytes, but 2 chunks take 96"),
        (changed(0, b"X"), "it does not start with the right bytes"),
        (changed(8, b"\2"), "it has version 2 with digests of 16 bytes"),
        (changed(10, b"\x08"), "it has version 1 with digests of 8 bytes"),
        (changed(12, b"\xff" * 4), "it has 96 bytes, but 4294967295 chunks take 85899345956"),
        (changed(16, b"\xff" * 8), "its chunks have 300 bytes, the image has 18446744073709551615"),
        (changed(56, b"\x65"), "its chunks have 301 bytes, the image has 300"),
        (changed(56, struct.pack("<II", 0, 300)), "a chunk is empty, or has more than 1048576 bytes"),
        (changed(56, struct.pack("<II", 0xFFFFFFFF, 1)), "a chunk is empty, or has more than 1048576 bytes"),
    ],
)
def test_bytes_that_are_not_an_index_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(IntegrityFailure) as failure:
        ChunkIndex.decode(data)
    assert failure.value.lines() == (
        "invalid chunk index",
        why,
        "the image can still be fetched as a whole",
    )


def test_an_inconsistent_index_cannot_be_created() -> None:
    with pytest.raises(IntegrityFailure, match="it has 1 lengths and 15 bytes of digests"):
        ChunkIndex(1, Digest.of(b""), (1,), b"x" * 15)
    with pytest.raises(IntegrityFailure, match="it identifies the image by sha512"):
        ChunkIndex(0, Digest("sha512", "0" * 128), (), b"")


@given(st.binary(max_size=200) | st.builds(changed, st.integers(0, len(GOOD)), st.binary(max_size=20)))
def test_any_bytes_are_an_index_of_all_its_bytes_or_an_integrity_failure(data: bytes) -> None:
    try:
        found = ChunkIndex.decode(data)
    except IntegrityFailure:
        return
    assert found.encode() == data
    assert sum(chunk.length for chunk in found.chunks()) == found.size

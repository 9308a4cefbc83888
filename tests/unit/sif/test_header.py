from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import IntegrityFailure
from factory.sif.header import Partition, SifHeader, read_sif_header
from tests.unit.delta.images import DEFINITION, DESCRIPTOR, Part, sif


def read(data: bytes) -> SifHeader:
    return read_sif_header(io.BytesIO(data), len(data), "image.sif")


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_a_header_has_architecture_times_and_objects_in_order_of_their_offsets() -> None:
    header = read(sif(Part(b"def", kind=DEFINITION), Part(b"x" * 5000)))
    assert (header.arch, header.created, header.modified) == ("amd64", 1700000000, 1700000001)
    assert header.id == bytes(range(16))
    assert header.data_start == 4096 + 48 * 585
    assert [(item.kind, item.offset, item.size) for item in header.objects] == [
        (0x4001, 32176, 3),
        (0x4004, 32768, 5000),
    ]
    assert header.objects[0].name == "part"


def test_the_primary_system_is_the_partition_with_that_purpose() -> None:
    overlay, system = Part(b"o" * 10, file_system=2, purpose=4), Part(b"s" * 10)
    found = read(sif(overlay, system)).primary_system
    assert isinstance(found, Partition)
    assert (found.file_system, found.arch, found.offset, found.end) == ("squashfs", "amd64", 36864, 36874)


def test_a_sif_without_a_primary_system_says_so() -> None:
    assert read(sif(Part(b"data", purpose=3))).primary_system is None
    assert read(sif()).primary_system is None


@pytest.mark.parametrize(
    ("code", "arch"),
    [("01", "386"), ("02", "amd64"), ("03", "arm"), ("04", "arm64"), ("06", "ppc64le"), ("11", "s390x"),
     ("12", "riscv64"), ("00", "unknown"), ("77", "unknown")],
)  # fmt: skip
def test_an_architecture_code_reads_as_go_names_it(code: str, arch: str) -> None:
    assert read(sif(arch=code.encode())).arch == arch


def test_an_unused_descriptor_is_not_an_object_whatever_it_holds() -> None:
    data = changed(sif(Part(b"x" * 10, size=1 << 60)), 4096 + 4, b"\0")
    assert read(data).objects == ()


def test_a_file_system_of_a_later_specification_is_unknown() -> None:
    found = read(sif(Part(b"x", file_system=99))).primary_system
    assert found is not None
    assert found.file_system == "unknown"


GOOD = sif(Part(b"def", kind=DEFINITION), Part(b"x" * 5000))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it has 0 bytes, less than the header's 128"),
        (GOOD[:127], "it has 127 bytes, less than the header's 128"),
        (changed(GOOD, 32, b"SIF_MAGIX"), "the SIF magic number is missing"),
        (changed(GOOD, 42, b"02"), "its version is '02', and only '01' is supported"),
        (sif(total=-1), "it claims -1 descriptors"),
        (sif(total=1 << 40), "it claims 1099511627776 descriptors"),
        (sif(total=4096), "its descriptors, bytes 4096 to 2400256, do not fit in the file's 32176 bytes"),
        (sif(start=-585), "its descriptors, bytes -585 to 27495, do not fit in the file's 32176 bytes"),
        (sif(start=0), "its descriptors, bytes 0 to 28080, do not fit in the file's 32176 bytes"),
        (GOOD[:20000], "its descriptors, bytes 4096 to 32176, do not fit in the file's 20000 bytes"),
        (sif(Part(b"x", size=1 << 62)), "an object of 4611686018427387904 bytes at offset 32768 does not fit"),
        (sif(Part(b"x", size=-1)), "an object of -1 bytes at offset 32768 does not fit"),
        (sif(Part(b"x", offset=-1)), "an object of 1 bytes at offset -1 does not fit"),
        (sif(Part(b"x", offset=4096)), "an object at offset 4096 overlaps the descriptors"),
        (sif(Part(b"xyz"), Part(b"x", offset=32770)), "objects overlap at offset 32770"),
        (sif(Part(b"x"), Part(b"x")), "it has 2 primary system partitions"),
    ],
)
def test_a_header_that_does_not_hold_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(IntegrityFailure) as failure:
        read(data)
    assert failure.value.what == "image.sif is not a valid SIF file"
    assert failure.value.why.startswith(why)


def test_a_file_that_shrinks_within_the_descriptors_is_refused() -> None:
    with pytest.raises(IntegrityFailure, match="its descriptors are truncated"):
        read_sif_header(io.BytesIO(GOOD[:20000]), len(GOOD), "image.sif")


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 127) | st.integers(4096, 4096 + 2 * 585), st.binary(min_size=1, max_size=8))))
def test_any_damage_gives_a_header_within_the_file_or_an_integrity_failure(damage: list[tuple[int, bytes]]) -> None:
    data = GOOD
    for at, new in damage:
        data = changed(data, at, new)
    try:
        header = read(data)
    except IntegrityFailure:
        return
    assert all(header.data_start <= item.offset <= item.end <= len(data) for item in header.objects)


def test_the_descriptor_size_is_that_of_the_specification() -> None:
    assert (DESCRIPTOR.size, struct.calcsize("<32s10s3s3s16sqqqqqqqq")) == (585, 128)

"""Targets: SIF files, the file systems in them, and chunk indexes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from factory.check.readiness.readiness import examine
from factory.delta.cuts import known_edges
from factory.delta.index import LONGEST_CHUNK, ChunkIndex, index_image
from factory.delta.match import coalesced, compare, match
from factory.oci.digest import Digest
from factory.recipes.model import Recipe, RunSpec
from factory.sif.elf import read_elf
from factory.sif.fingerprint import fingerprint_of
from factory.sif.header import read_sif_header
from factory.sif.own_test import has_own_test
from factory.sif.packages import installed
from factory.sif.tree import open_tree
from tests.attacks.fuzzing.hostile_squashfs import FILE, FileSystem, file, folder, listing, metadata
from tests.attacks.fuzzing.target import MIB, Target
from tests.unit.check.readiness.images import AARCH64, elf
from tests.unit.delta import images
from tests.unit.delta.images import noise
from tests.unit.sif.packing import PLAIN, image, write

_DPKG = """Package: libc6
Status: install ok installed
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def root(made: Path) -> Path:
    """A small root folder with something of every kind, and packages."""
    shutil.rmtree(made, ignore_errors=True)
    write(made, "bin/sh", noise(9000))
    write(made, "bin/again", noise(9000))
    write(made, "usr/lib/one.py", "x = 1\n")
    write(made, "usr/lib/__pycache__/one.cpython-311.pyc", b"\xa7\r\r\n" + bytes(4) + noise(40))
    write(made, "empty")
    write(made, "zeros", bytes(20_000))
    (made / "link").symlink_to("bin/sh")
    (made / "bin/hard").hardlink_to(made / "bin/sh")
    write(made, "var/lib/dpkg/status", _DPKG)
    write(made, "lib/apk/db/installed", "P:musl\nV:1.2\nF:lib\n\nP:zlib\nV:1\n")
    write(made, "usr/lib/python3/dist-packages/x-1.dist-info/METADATA", "Name: X.y\nVersion: 1\n\nlong\n")
    write(made, "opt/conda/conda-meta/numpy-1.26-py311_0.json", "{}")
    write(made, "usr/lib/R/library/abc/DESCRIPTION", "Package: abc\nVersion: 2\nBuilt: R 4\n")
    os.mkfifo(made / "pipe")
    write(made, ".singularity.d/env/90-environment.sh", "export PATH=/opt/bin:$PATH A=${B:-x} TOKEN='abcdefgh'\n")
    write(made, ".singularity.d/runscript", '#!/bin/sh\nOCI_CMD=\'"sh" "-c"\'\nexec one "$@"\n', mode=0o755)
    write(made, "root/.netrc", "machine a login b password abcdefgh\n", mode=0o600)
    write(made, "var/lib/dpkg/info/libc6.list", "/.\n/bin\n/bin/sh\n")
    (made / "opt/lost").symlink_to("../../gone/x")
    write(made, ".singularity.d/labels.json", '{"org.label-schema.build-date": "now", "a": "b"}')
    return made


@lru_cache
def _packed(place: Path) -> tuple[bytes, ...]:
    made = root(place / "root")
    device = ("-p", "dev c 666 0 0 1 3", "-p", "disk b 660 0 6 8 0")
    ways = (PLAIN, ("-comp", "gzip", "-b", "4K"), ("-comp", "xz"), ("-b", "8K", "-no-fragments", *PLAIN))
    found = tuple(image(made, *options, *device).read_bytes() for options in ways)
    shutil.rmtree(made)
    (place / "root.sif").unlink()
    return (*found, _with_attributes())


def _with_attributes() -> bytes:
    """A file with extended attributes, which not every file system keeps for mksquashfs."""
    values = struct.pack("<HH", 0, 1) + b"a" + struct.pack("<I", 3) + b"abc"
    values += struct.pack("<HH", 2, 3) + b"ima" + struct.pack("<I", 0)
    values += struct.pack("<HHB", 0x100, 1, ord("b")) + struct.pack("<IQ", 8, 5)  # the value of the first one
    lists = struct.pack("<QII", 0, 3, len(values))
    name = listing((b"f", FILE, 0, len(folder(0))))
    inodes = folder(len(name)) + file(0, xattrs=0)
    return FileSystem(
        metadata(inodes, packed=False),
        metadata(name, packed=False),
        xattr_values=metadata(values, packed=False),
        xattr_lists=1,
        xattr_index=metadata(lists, packed=False),
    ).build()


def _sifs(place: Path) -> Sequence[bytes]:
    return _packed(place)


def _small(_place: Path) -> Sequence[bytes]:
    return [images.image(noise(20_000), noise(3000, 1)), images.image(noise(5000), compressor="xz")]


def _header(data: bytes, _place: Path) -> None:
    header = read_sif_header(io.BytesIO(data), len(data), "image")
    for item in header.objects:
        assert 0 <= item.offset <= item.end <= len(data)


def _edges(data: bytes, place: Path) -> None:
    edges = known_edges(io.BytesIO(data), len(data), "image")
    assert list(edges) == sorted(edges)
    assert edges[-1] == len(data)
    path = place / "image.sif"
    path.write_bytes(data)
    index = index_image(path)
    assert index.digest == Digest("sha256", hashlib.sha256(data).hexdigest())


def _tree(data: bytes, place: Path) -> None:
    path = place / "image.sif"
    path.write_bytes(data)
    with open_tree(path) as tree:
        for name in tree.entries:
            assert ".." not in name.split("/")
        for package in installed(tree).found:
            assert (package.name + package.version).isprintable()
        if sum(entry.inode.size for entry in tree.entries.values()) < 64 * MIB:
            fingerprint_of(tree)


def _fingerprint(data: bytes, place: Path) -> None:
    """Of all that the files claim to be."""
    path = place / "image.sif"
    path.write_bytes(data)
    with open_tree(path) as tree:
        fingerprint_of(tree)


def _readiness(data: bytes, place: Path) -> None:
    path = place / "image.sif"
    path.write_bytes(data)
    folder = place / "recipe"
    for finding in examine(Recipe(folder, "tool", "1", "", run=RunSpec(binds=("/dataset",))), path):
        assert str(finding).isprintable()


def _program(data: bytes, _place: Path) -> None:
    found = read_elf(data)
    assert found is None or found.interpreter == "" or found.interpreter.startswith("/")


def _programs(_place: Path) -> Sequence[bytes]:
    return [elf(interpreter="/lib64/ld-linux-x86-64.so.2"), elf(bits=32), elf(AARCH64)]


def _told(_place: Path) -> Sequence[bytes]:
    """Images that tell by a JSON object of their own what their %test is."""
    scripts: Sequence[dict[str, object]] = (
        {},
        {"test": "#!/bin/sh\n"},
        {"test": "#!/bin/sh\ntrue\n", "labels": {"a": "b"}},
    )
    return [images.with_metadata(attributes) for attributes in scripts]


def _own_test(data: bytes, place: Path) -> None:
    path = place / "image.sif"
    path.write_bytes(data)
    assert has_own_test(path) in (True, False)


def _chunks(_place: Path) -> Sequence[bytes]:
    blocks = [noise(5000, number) for number in range(6)]
    made = []
    for order in ((0, 1, 2, 3), (4, 1, 2, 2, 5), ()):
        whole = b"".join(blocks[number] for number in order)
        digests = b"".join(hashlib.sha256(blocks[number]).digest()[:16] for number in order)
        made.append(ChunkIndex(len(whole), Digest.of(whole), (5000,) * len(order), digests).encode())
    return made


def _index(data: bytes, _place: Path) -> None:
    want = ChunkIndex.decode(data)
    assert want.encode() == data
    have = ChunkIndex.decode(_chunks(Path())[0])
    overlap = compare(have, want)
    assert overlap.reused + overlap.missing == want.size
    pieces = coalesced(match(want, [have, want]), 1000)
    assert sum(piece.length for piece in pieces) == want.size
    for first, second in pairwise(pieces):
        assert first.offset + first.length == second.offset
    compare(want, have)
    assert max(want.lengths, default=0) <= LONGEST_CHUNK


TARGETS = (
    Target("sif-header", _header, lambda place: [*_small(place), *_sifs(place)[:1]], "sif", inputs=1000),
    Target("own-test", _own_test, _told, "sif", inputs=300),
    Target("blocks-of-squashfs", _edges, lambda place: [*_small(place), *_sifs(place)], "sif", inputs=300),
    Target("tree-of-squashfs", _tree, _sifs, "sif", inputs=400),
    Target("fingerprint", _fingerprint, _sifs, "sif", inputs=60, seconds=60.0),
    Target("readiness", _readiness, _sifs, "sif", inputs=200),
    Target("elf", _program, _programs, "sif", inputs=500),
    Target("chunk-index", _index, _chunks, "chunks", inputs=1000),
)

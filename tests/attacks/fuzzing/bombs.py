"""Inputs that are small, or cheap to make, and claim to be large: each with the bounds that it must stay in."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.attacks.fuzzing.hostile_squashfs import (
    FILE,
    FOLDER,
    LINK,
    PIPE,
    FileSystem,
    file,
    folder,
    inode,
    listing,
    metadata,
)
from tests.attacks.fuzzing.target import MIB
from tests.factory_project import ROOT
from tests.unit.delta.images import Part, Squashfs, noise, sif


@dataclass(frozen=True)
class Bomb:
    """An input of a target. seconds, memory: its bounds, where they are not the target's."""

    name: str
    target: str
    make: Callable[[], bytes]
    seconds: float = 0.0
    memory: int = 0


def _dependencies() -> bytes:
    text = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = [\n'
    return (text + '"one>=1",\n' * 20_000 + "]\n").encode()


def _repeated_lists() -> bytes:
    """Three hundred million names of a package, if they are written out."""
    lists = [b"a0: &a0 [x, x, x, x]"]
    lists += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 4)) for n in range(1, 15)]
    entry = b"package:\n- name: *a14\n  platform: linux-64\n  manager: conda\n  version: *a14\n  url: *a14\n"
    return b"\n".join((b"version: 1", *lists, entry))


def _lists_of_attributes() -> bytes:
    """Four million lists of extended attributes, all in one block of zeros; 70 KB."""
    root = folder(0) + bytes(64)
    return FileSystem(
        metadata(root, packed=False),
        xattr_values=metadata(bytes(64)),
        xattr_lists=(4 << 20) - 1,
        xattr_index=metadata(bytes(8192)),
    ).build()


def _attributes() -> bytes:
    """A list of two million empty attributes."""
    first = folder(len(_one_file()), 0, 0) + file(0, xattrs=0)
    lists = struct.pack("<QII", 0, 2_000_000, 0).ljust(8192, b"\0")
    return FileSystem(
        metadata(first, packed=False),
        metadata(_one_file()),
        xattr_values=metadata(bytes(16 << 20)),
        xattr_lists=1,
        xattr_index=metadata(lists),
    ).build()


def _shared_attributes() -> bytes:
    """A list of two hundred thousand attributes, and twenty thousand names of the file that has it."""
    names = listing(*((b"%05d" % number, FILE, 0, len(folder(0))) for number in range(20_000)))
    first = folder(len(names)) + file(0, xattrs=0)
    lists = struct.pack("<QII", 0, 200_000, 0).ljust(8192, b"\0")
    return FileSystem(
        metadata(first, packed=False),
        metadata(names),
        xattr_values=metadata(bytes(2 << 20)),
        xattr_lists=1,
        xattr_index=metadata(lists),
    ).build()


def _one_file(name: bytes = b"f") -> bytes:
    return listing((name, FILE, 0, len(folder(0))))


def _tiny_blocks() -> bytes:
    """A block list of four million bytes, a metadata block for each of them; 12 MB."""
    first = folder(len(_one_file())) + file((1 << 20) * 4096)
    table = metadata(first, packed=False) + metadata(bytes(4 << 20), 1, packed=False)
    return FileSystem(table, metadata(_one_file()), block_size=4096).build()


def _long_names() -> bytes:
    """A deep folder with a long name in letters that take four bytes, and in it as many entries as there may be."""
    name = "\U0001f600".encode() * 64
    deep, many = 60, 60_000
    size = len(folder(0))
    entries = [(b"%05d" % number, FILE, 0, size * (deep + 1)) for number in range(many)]
    inner = b"".join(
        struct.pack("<III", 255, 0, 1)
        + b"".join(struct.pack("<HhHH", offset, 0, kind, 4) + name for name, kind, _, offset in entries[at : at + 256])
        for at in range(0, many - 256, 256)
    )
    outer = [listing((name, FOLDER, 0, size * (level + 1))) for level in range(deep)]
    place, inodes = 0, []
    for one in outer:
        inodes.append(folder(len(one), *_stored(place)))
        place += len(one)
    first = metadata(b"".join(outer), packed=False)
    inodes.append(folder(len(inner), len(first), 0))
    inodes.append(file(0))
    return FileSystem(metadata(b"".join(inodes), packed=False), first + metadata(inner)).build()


def _stored(place: int) -> tuple[int, int]:
    """Block and offset of a place in a table that is not packed."""
    return place // 8192 * 8194, place % 8192


def _many_entries() -> bytes:
    """Entries up to the most that are read: a million names for one file."""
    names = 1 << 20
    runs = []
    for at in range(0, names - 256, 256):
        entries = (
            struct.pack("<HhHH", len(folder(0)), 0, FILE, 5) + b"%06d" % number for number in range(at, at + 256)
        )
        runs.append(struct.pack("<III", 255, 0, 1) + b"".join(entries))
    raw = b"".join(runs)
    return FileSystem(metadata(folder(len(raw)) + file(0), packed=False), metadata(raw)).build()


def _many_links() -> bytes:
    """A hundred thousand names for a link whose target has two thousand parts."""
    target = b"./" * 2040 + b"../gone"
    link = inode(LINK, struct.pack("<II", 1, len(target)) + target)
    runs = []
    for at in range(0, (1 << 17) - 256, 256):
        entries = (
            struct.pack("<HhHH", len(folder(0)), 0, LINK, 5) + b"%06d" % number for number in range(at, at + 256)
        )
        runs.append(struct.pack("<III", 255, 0, 1) + b"".join(entries))
    raw = b"".join(runs)
    return FileSystem(metadata(folder(len(raw)) + link, packed=False), metadata(raw)).build()


def _many_inodes() -> bytes:
    """Four thousand million inodes, as the superblock says."""
    pipes = inode(PIPE, struct.pack("<I", 1)) * (70 * MIB // 20)
    return FileSystem(metadata(pipes), changes={"inodes": 2**32 - 1}).build()


def _many_tiny_inodes() -> bytes:
    """An inode table of 8 MB in blocks of a byte each."""
    return FileSystem(
        metadata(inode(PIPE, struct.pack("<I", 1)) * 400_000, 1, packed=False), changes={"inodes": 2**32 - 1}
    ).build()


def _fragments() -> bytes:
    """A million fragments in one block."""
    block = struct.pack("<QII", 96, 1, 0) * 512
    return FileSystem(
        metadata(folder(0), packed=False), data=b"x", fragments=1_000_000, fragment_index=metadata(block)
    ).build()


def _loop() -> bytes:
    """A folder that lists itself, and a thousand folders that list each other."""
    size = len(folder(0))
    count = 200
    inodes, lists = [], b""
    for number in range(count):
        one = listing((b"next", FOLDER, 0, size * ((number + 1) % count)), (b"self", FOLDER, 0, size * number))
        inodes.append(folder(len(one), 0, len(lists)))
        lists += one
    return FileSystem(metadata(b"".join(inodes)[:8192], packed=False), metadata(lists[:8192])).build()


def _status(text: bytes, path: tuple[bytes, ...], *, files: int = 1, name: bytes = b"status") -> bytes:
    """A database of 64 MiB that repeats this text, under one name or under many inodes."""
    block = MIB
    piece = (text * (block // len(text) + 1))[:block]
    packed = zlib.compress(piece, 9)
    size = len(folder(0))
    blocks = 63
    inodes = [folder(0)] * (len(path) + 1)
    lists, place = [], 0
    for level, one in enumerate(path):
        lists.append(listing((one, FOLDER, 0, size * (level + 1))))
        inodes[level] = folder(len(lists[-1]), 0, place)
        place += len(lists[-1])
    one_file = file(blocks * block, 96, *([len(packed)] * blocks))
    heads = metadata(b"".join(inodes) + bytes(0), packed=False)
    many = one_file * files
    table, places = b"", []
    # Blocks of one inode each keep the places of all of them simple.
    for number in range(files):
        places.append(len(heads) + len(table))
        table += metadata(many[number * len(one_file) : (number + 1) * len(one_file)], packed=False)
    names = [name if files == 1 else b"%s%06d" % (name, number) for number in range(files)]
    last = listing(*((one, FILE, at, 0) for one, at in zip(names, places, strict=True)))
    first = metadata(b"".join(lists), packed=False)
    inodes[len(path)] = folder(len(last), len(first), 0)
    return FileSystem(
        metadata(b"".join(inodes), packed=False) + table, first + metadata(last), data=packed * blocks, block_size=block
    ).build()


def _overlapping_lists() -> bytes:
    """Files whose block lists are one list of a quarter million blocks; together they claim what files may."""
    each = 1 << 18
    inodes = b"".join(file(4096 * (each - 100 * number), 96) for number in range(16))
    size = len(file(0))
    raw = listing(*((b"%04d" % number, FILE, 0, len(folder(0)) + number * size) for number in range(16)))
    sizes = metadata(struct.pack("<I", 4000) * (each + 4096))
    return FileSystem(metadata(folder(len(raw)) + inodes, packed=False) + sizes, metadata(raw), block_size=4096).build()


def _packed_block(bomb: bytes, compressor: int) -> bytes:
    """A file system whose first metadata block is this."""
    return FileSystem(struct.pack("<H", len(bomb)) + bomb, changes={"compressor": compressor}).build()


def _xz_metadata() -> bytes:
    """A metadata block that unpacks to fifty megabytes."""
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, preset=6)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(48)) + packer.flush()
    return _packed_block(bomb[:8192], 4)


def _gzip_metadata() -> bytes:
    """The same by gzip."""
    return _packed_block(zlib.compress(bytes(7 * MIB), 9), 1)


def _chunks() -> bytes:
    """An index as large as any that is read, of chunks of a byte: 16 MiB."""
    count = (16 << 20) // 20 - 3
    return (
        struct.pack("<8sHHIQ32s", b"SFCHUNKS", 1, 16, count, count, bytes(32))
        + struct.pack("<I", 1) * count
        + noise(16 * count)
    )


def _claimed_chunks() -> bytes:
    """A header that claims a thousand million chunks."""
    return struct.pack("<8sHHIQ32s", b"SFCHUNKS", 1, 16, 10**9, 10**12, bytes(32)) + bytes(4096)


def _unknown_keys() -> bytes:
    """A recipe with as many keys before its first table as fit into what is read of one (256 kB)."""
    keys = "".join(f"key-{number} = 1\n" for number in range(17_000))
    return keys.encode() + (ROOT / "recipes/python-3.11/recipe.toml").read_bytes()


def _descriptors(offset: int | None = None, size: int | None = None) -> Callable[[], bytes]:
    def make() -> bytes:
        system = Squashfs()
        system.add_links()
        definition = Part(b"Bootstrap: docker\n", 0x4001, offset=offset, size=size)
        return sif(Part(system.build(), offset=offset, size=size), definition)

    return make


_DPKG = (b"var", b"lib", b"dpkg")
_ENVIRONMENT = (b".singularity.d", b"env")
BOMBS = (
    Bomb("four million lists of attributes in 70 KB", "tree-of-squashfs", _lists_of_attributes),
    Bomb("two million attributes of a file", "tree-of-squashfs", _attributes),
    Bomb("names that share a long list of attributes", "fingerprint", _shared_attributes, 10.0),
    Bomb("metadata blocks of a byte each", "fingerprint", _tiny_blocks, 5.0),
    Bomb("names in letters of four bytes", "tree-of-squashfs", _long_names, 10.0, 512 * MIB),
    Bomb("a million names for one file", "tree-of-squashfs", _many_entries, 30.0, 1024 * MIB),
    Bomb("four thousand million inodes", "blocks-of-squashfs", _many_inodes, 20.0),
    Bomb("inodes in blocks of a byte", "blocks-of-squashfs", _many_tiny_inodes, 2.0),
    Bomb("a million fragments in one block", "tree-of-squashfs", _fragments, 5.0, 64 * MIB),
    Bomb("folders in each other", "tree-of-squashfs", _loop),
    Bomb("block lists in each other", "fingerprint", _overlapping_lists, 20.0, 64 * MIB),
    Bomb("a metadata block of xz that unpacks without end", "tree-of-squashfs", _xz_metadata),
    Bomb("a metadata block of gzip that unpacks without end", "tree-of-squashfs", _gzip_metadata),
    Bomb("a dpkg database of empty lines", "tree-of-squashfs", lambda: _status(b"\n", _DPKG), 10.0),
    Bomb("a dpkg database of one record", "tree-of-squashfs", lambda: _status(b"a\n", _DPKG), 10.0),
    Bomb("a dpkg database of tiny records", "tree-of-squashfs", lambda: _status(b"a\n\n", _DPKG), 20.0),
    Bomb(
        "a dpkg database of wide letters",
        "tree-of-squashfs",
        lambda: _status("\U0001f600".encode() * 16 + b"\n", _DPKG),
        10.0,
    ),
    Bomb(
        "two hundred large databases",
        "tree-of-squashfs",
        lambda: _status(b"a:\n", (*_DPKG, b"status.d"), files=200),
        20.0,
    ),
    Bomb("a hundred thousand names for a link with a long way", "readiness", _many_links, 20.0),
    Bomb(
        "a list of packaged files without end",
        "readiness",
        lambda: _status(b"/a\n", (*_DPKG, b"info"), name=b"x.list"),
        20.0,
    ),
    Bomb(
        "variables without end", "readiness", lambda: _status(b"A=$A$A\n", _ENVIRONMENT, files=60, name=b"9.sh"), 20.0
    ),
    Bomb("a runscript without end", "readiness", lambda: _status(b"exec a\n", _ENVIRONMENT[:1], name=b"runscript")),
    Bomb("objects that overlap", "sif-header", _descriptors(offset=40_000)),
    Bomb("objects outside of the file", "sif-header", _descriptors(offset=2**62)),
    Bomb("objects of more bytes than there are", "sif-header", _descriptors(size=2**63 - 1)),
    Bomb("objects before the file", "sif-header", _descriptors(offset=-1)),
    Bomb("a chunk index of a thousand million chunks", "chunk-index", _claimed_chunks),
    Bomb("a chunk index as large as any that is read", "chunk-index", _chunks, 20.0, 768 * MIB),
    Bomb("beginnings of a document without end", "document-of-slurm", lambda: b"[\n" * 100_000 + b"]\n" * 100),
    Bomb("a document that is nested without end", "document-of-slurm", lambda: b"[\n" + b"[" * 100_000 + b"\n]\n"),
    Bomb("17,000 unknown keys", "recipe.toml", _unknown_keys),
    Bomb("80,000 included files", "requirements.txt", lambda: b"-r more.txt\n" * 80_000),
    Bomb("comments without end below a requirement", "requirements.txt", lambda: b"one==1\n" + b" #\n" * 1_000_000),
    Bomb("20,000 dependencies", "pyproject.toml", _dependencies, 10.0),
    Bomb("lists of lists of lists that are all the same", "conda-lock.yml", _repeated_lists),
    Bomb("a number of 200,000 parts", "conda-lock.yml", lambda: b"version: 1" + b":1" * 200_000 + b".5\n"),
    Bomb("an address of only @", "dockerfile", lambda: b"FROM scratch\nADD " + b"@" * 100_000 + b" /x\n"),
)

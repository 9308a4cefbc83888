"""The chunk index of an image: an ordered list of chunks, each with its length and digest.

Two indexes show which bytes two images share (``match.py``). An index is small (less than 0.1 % of the image), so it
can be fetched first.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from factory.delta.cuts import LONGEST_CUT, Cutter, known_edges
from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Progress, Silent, step
from factory.io.threads import Second
from factory.oci.digest import Digest

# 128 bits of SHA-256. Forging a given chunk takes 2^128 tries. Making two chunks that collide takes 2^64, and only
# causes the assembled file to fail its whole-file digest, which is always checked.
DIGEST_SIZE = 16
LONGEST_CHUNK = 1 << 20  # bytes; chunks are held in memory, and an index is untrusted

_READ = 4 << 20
_MAGIC = b"SFCHUNKS"
_VERSION = 1
# magic, version, bytes in a chunk's digest, chunks, bytes in the image, SHA-256 of the image
_HEADER = struct.Struct("<8sHHIQ32s")
_LENGTH_SIZE = 4


class Chunk(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of an image, and the first 16 bytes of their SHA-256 digest."""

    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True)
class ChunkIndex:
    """The chunks of an image of ``size`` bytes and digest ``digest``, which cover it without gaps.

    lengths: of the chunks, in order, in bytes. digests: of the chunks, 16 bytes each, concatenated. Raises
    IntegrityFailure if they are inconsistent.
    """

    size: int
    digest: Digest
    lengths: tuple[int, ...]
    digests: bytes

    def __post_init__(self) -> None:
        if self.digest.algorithm != "sha256":
            raise _broken(f"it identifies the image by {self.digest.algorithm}")
        if len(self.digests) != len(self.lengths) * DIGEST_SIZE:
            raise _broken(f"it has {len(self.lengths)} lengths and {len(self.digests)} bytes of digests")
        if self.lengths and not (min(self.lengths) > 0 and max(self.lengths) <= LONGEST_CHUNK):
            raise _broken(f"a chunk is empty, or has more than {LONGEST_CHUNK} bytes")
        if sum(self.lengths) != self.size:
            raise _broken(f"its chunks have {sum(self.lengths)} bytes, the image has {self.size}")

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in order of their offsets."""
        offset = 0
        for place, length in enumerate(self.lengths):
            yield Chunk(offset, length, self.digests[place * DIGEST_SIZE : (place + 1) * DIGEST_SIZE])
            offset += length

    def encode(self) -> bytes:
        """Return the index as bytes: a 56-byte header, then 4 bytes per length, then 16 per digest (little-endian)."""
        count = len(self.lengths)
        header = _HEADER.pack(_MAGIC, _VERSION, DIGEST_SIZE, count, self.size, bytes.fromhex(self.digest.hex))
        return header + struct.pack(f"<{count}I", *self.lengths) + self.digests

    @classmethod
    def decode(cls, data: bytes) -> ChunkIndex:
        """Parse the output of ``encode``. Raises IntegrityFailure for anything else, including trailing bytes."""
        if len(data) < _HEADER.size:
            raise _broken(f"it ends after {len(data)} bytes")
        magic, version, digest_size, count, size, digest = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise _broken("it does not start with the right bytes")
        if version != _VERSION or digest_size != DIGEST_SIZE:
            raise _broken(f"it has version {version} with digests of {digest_size} bytes")
        wanted = _HEADER.size + count * (_LENGTH_SIZE + DIGEST_SIZE)
        if len(data) != wanted:
            raise _broken(f"it has {len(data)} bytes, but {count} chunks take {wanted}")
        lengths = struct.unpack_from(f"<{count}I", data, _HEADER.size)
        return cls(size, Digest("sha256", digest.hex()), lengths, bytes(data[wanted - count * DIGEST_SIZE :]))


def largest_index(size: int) -> int:
    """Return the size limit, in bytes, for the index of an image: 1 %, at most 16 MiB. Real ones have about 0.05 %."""
    return min(16 << 20, size // 100 + 4096)


def digest_of_chunk(block: bytes | memoryview) -> bytes:
    """Return the first 16 bytes of a chunk's SHA-256 digest."""
    return hashlib.sha256(block).digest()[:DIGEST_SIZE]


def index_image(path: Path, progress: Progress | None = None) -> ChunkIndex:
    """Index a SIF and compute its SHA-256 digest, in one pass.

    Raises IntegrityFailure if the path is not a regular file, not a valid SIF, or changes meanwhile; OSError.
    """
    progress = progress or Silent()
    with plain.reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        cutter = Cutter(known_edges(file, size, str(path)))
        with step(progress, f"index {path.name}", size):
            made = _read(file, size, cutter, progress)
    if made is None:
        raise IntegrityFailure(
            f"{path} changed while it was being read",
            why=f"it no longer has {size} bytes",
            fix="try again when nobody is writing to it",
        )
    return made


def _read(file: BinaryIO, size: int, cutter: Cutter, progress: Progress) -> ChunkIndex | None:
    """Hash the whole file in a second thread while this one hashes the chunks; hashlib releases the GIL.

    Return None if the file does not have ``size`` bytes.
    """
    buffer = bytearray(LONGEST_CUT + _READ)
    view = memoryview(buffer)
    kept = 0  # bytes at the start of the buffer that belong to an unfinished chunk
    whole = hashlib.sha256()
    lengths, digests = array("I"), bytearray()
    position = 0
    with Second() as second:
        while position <= size and (count := os.preadv(file.fileno(), [view[kept : kept + _READ]], position)):
            position += count
            filled = kept + count
            second.submit(partial(whole.update, view[kept:filled]))
            at = 0
            for end in cutter.ends(buffer, filled):
                lengths.append(end - at)
                digests += digest_of_chunk(view[at:end])
                at = end
            second.wait()
            kept = filled - at
            view[:kept] = view[at:filled]
            progress.advance(count)
    if position != size:
        return None
    return ChunkIndex(size, Digest("sha256", whole.hexdigest()), tuple(lengths), bytes(digests))


def _broken(why: str) -> IntegrityFailure:
    return IntegrityFailure("invalid chunk index", why=why, fix="the image can still be fetched as a whole")

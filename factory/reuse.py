"""Reuse: what an image shares with those that are here already is copied from them, only the rest is fetched.

Its chunk index tells what it consists of, theirs tell where that is. Nothing is believed: an index that is wrong or
hostile costs a full pull, never wrong bytes, since the digest of the whole image decides in the store.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from factory.delta.index import ChunkIndex, index_image, largest_index
from factory.delta.match import Piece, Span, coalesced, match, right_in_place
from factory.digest import Descriptor, Digest
from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, RegistryFailure
from factory.io.private import private_size
from factory.io.progress import Progress
from factory.registry.protocol import Registry, read_all
from factory.release import Release
from factory.store.assemble import Piece as StoredPiece
from factory.store.seeds import Seed, forget, remember, remembered, seeds
from factory.store.store import Store

_WORTH_IT = 4 * 1024 * 1024  # bytes of an image; smaller ones are fetched whole before an index has come
_GAP = 32 * 1024  # bytes that are fetched twice rather than asked around
_USUAL_WAIT = 0.05  # seconds for an index that did not have to come
_INDEXING = 250e6  # bytes a second at which a local image is indexed, carefully guessed
_WARMED_UP = 8  # times as fast as a chunk index come the bytes of an image: that one is short, its wait a round trip
_FASTEST = 1e9  # bytes a second of any network
_COPYING = 1e9  # bytes a second at which local images are copied
_REQUEST = 0.002  # seconds of each request, beside its round trip
_PIECE = 0.0001  # seconds of each piece


@dataclass
class Reuse:
    """Looks for what can be reused for one release. fetched: bytes of chunk indexes that came over the network.

    indexes: where the registry has the indexes of other images of the recipe, by their SIF digests.
    """

    release: Release
    registry: Registry
    store: Store
    progress: Progress
    indexes: Mapping[Digest, Descriptor]
    fetched: int = 0
    _used: tuple[Digest, ...] = ()

    def plan(self, ahead: Path) -> Sequence[StoredPiece] | None:
        """Where the bytes of the image are: factory.store.assemble.Plan. None where a full pull is better.

        Whatever goes wrong here, the image can be had without it.
        """
        try:
            return self._plan(ahead)
        except (RegistryFailure, NotFound, AccessDenied):  # no index to be had
            return None
        except (IntegrityFailure, OSError) as error:
            self.progress.note(f"the whole image is fetched: {error}")
            return None

    def done(self, transferred: int) -> None:
        """The image is here, with so many bytes of it fetched.

        Where reuse was tried, and all of it was fetched in the end, some index was wrong: none of them is kept.
        """
        for digest in self._used if transferred >= self.release.sif.size else ():
            forget(self.store, digest)

    def _plan(self, ahead: Path) -> Sequence[StoredPiece] | None:
        wanted, descriptor = self.release.sif, self.release.chunks
        if descriptor is None or wanted.size < _WORTH_IT or descriptor.size > largest_index(wanted.size):
            return None
        near = seeds(self.store, self.release.recipe, wanted)
        if not near and not _is_there(ahead):
            return None
        want, took = self._index(wanted, descriptor)
        speed = min(_FASTEST, _WARMED_UP * descriptor.size / took)
        having = self._indexed(near, wanted.size / speed)
        found = coalesced(match(want, [index for _, index in having]), _GAP)
        located = tuple(_located(found, [seed.path for seed, _ in having]))
        pieces = tuple(_with_ahead(want, located, ahead))
        if not pays(pieces, wanted.size, took, speed, self.registry.connections):
            return None
        self._used = (wanted.digest, *(seed.digest for seed, _ in having))
        return pieces

    def _index(self, wanted: Descriptor, descriptor: Descriptor) -> tuple[ChunkIndex, float]:
        """The index of the wanted image, and how many seconds it took to come.

        It is kept at once: a pull that is killed, and begun again, has it. Raises IntegrityFailure for a wrong one.
        """
        kept = remembered(self.store, wanted.digest, largest_index(wanted.size))
        if kept is not None and Digest.of(kept) == descriptor.digest:
            return ChunkIndex.decode(kept), _USUAL_WAIT
        asked = monotonic()
        content = self._fetch(descriptor)
        took = monotonic() - asked
        want = ChunkIndex.decode(content)
        if (want.digest, want.size) != (wanted.digest, wanted.size):
            raise IntegrityFailure("the chunk index is of another image", why=f"it is of {want.digest}")
        remember(self.store, wanted.digest, content)
        return want, max(took, 1e-6)

    def _fetch(self, descriptor: Descriptor) -> bytes:
        blocks = self.registry.blob(self.release.recipe, descriptor)
        content = read_all(blocks, descriptor.size)
        self.fetched += len(content)
        return content

    def _indexed(self, near: Iterable[Seed], patience: float) -> list[tuple[Seed, ChunkIndex]]:
        """The seeds whose index is kept, and the nearest one in any case; patience: seconds of a full pull."""
        found: list[tuple[Seed, ChunkIndex]] = []
        for seed in near:
            with contextlib.suppress(OSError, IntegrityFailure):  # gone, or damaged: the others are as good as ever
                size = seed.path.stat().st_size
                index = _sound(remembered(self.store, seed.digest, largest_index(size)) or b"", seed, size)
                index = index or (None if found else self._made(seed, size, patience))
                if index is not None:
                    found.append((seed, index))
        return found

    def _made(self, seed: Seed, size: int, patience: float) -> ChunkIndex | None:
        """The index of an image that is here: fetched, else made when a full pull takes longer."""
        there = self.indexes.get(seed.digest) if seed.recipe == self.release.recipe else None
        content = b""
        if there is not None and there.size <= largest_index(size):
            try:
                content = self._fetch(there)
            except NotFound:
                pass
            except FactoryError:  # the others would be asked for in vain, each for a while
                self.indexes = {}
        if not content and size / _INDEXING < patience:
            self.progress.note(f"looking what of {seed.recipe} can be reused")
            content = index_image(seed.path, self.progress).encode()
        index = _sound(content, seed, size)
        if index is not None:
            remember(self.store, seed.digest, content)
        return index


def _sound(content: bytes, seed: Seed, size: int) -> ChunkIndex | None:
    """The index of a local image, when that is what it is: a file that is damaged has another digest."""
    try:
        index = ChunkIndex.decode(content)
    except IntegrityFailure:
        return None
    return index if (index.digest, index.size) == (seed.digest, size) else None


def _is_there(ahead: Path) -> bool:
    """Raises IntegrityFailure when somebody else's file, or a link, stands there."""
    with contextlib.suppress(FileNotFoundError):
        return private_size(ahead) > 0
    return False


def _located(pieces: Iterable[Piece], paths: Sequence[Path]) -> Iterator[StoredPiece]:
    for offset, length, seed, at in pieces:
        yield StoredPiece(offset, length, None if seed is None else paths[seed], at)


def _with_ahead(want: ChunkIndex, pieces: Sequence[StoredPiece], ahead: Path) -> Iterator[StoredPiece]:
    """Look into what an earlier run had fetched ahead: what is right in it, at its own place, is not missing."""
    missing = [Span(piece.offset, piece.length) for piece in pieces if piece.file is None]
    right = deque(right_in_place(want, ahead, missing) if _is_there(ahead) else ())
    for piece in pieces:
        at, end = piece.offset, piece.offset + piece.length
        while right and right[0].offset < end:
            span = right.popleft()
            if at < span.offset:
                yield StoredPiece(at, span.offset - at, None, 0)
            at = sum(span)
            yield StoredPiece(*span, ahead, span.offset)
        if at < end:
            yield StoredPiece(at, end - at, piece.file, piece.at)


def pays(pieces: Sequence[StoredPiece], size: int, took: float, speed: float, connections: int) -> bool:
    """Whether this is sooner done than a full pull.

    took: seconds of one request; speed: bytes a second.
    """
    missing = [piece.length for piece in pieces if piece.file is None]
    saved = (size - sum(missing)) / speed
    asking = len(missing) * max(took / connections, _REQUEST)
    # What is fetched is written twice: where it came ahead, and in its place.
    return saved > asking + size / _COPYING + len(pieces) * _PIECE

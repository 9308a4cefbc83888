"""What a pull copies and what it fetches: a plan, out of the chunk indexes of the release and of images that are here.

The release's index says what the image consists of, the others say where that is. Nothing is believed: an index that is
wrong or hostile costs a full pull, never wrong bytes, since the digest of the whole image decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from factory.delta.index import ChunkIndex, index_image, largest_index
from factory.delta.match import Piece, coalesced, match
from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, RegistryFailure
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.records.release import Release
from factory.registry.protocol import Registry, read_all
from factory.store.fetch.plan import Plan, Span
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


@dataclass(frozen=True)
class Planned:
    """A plan, and what making it took.

    fetched: bytes of chunk indexes that came over the network. images: those whose indexes the plan follows.
    """

    plan: Plan
    fetched: int = 0
    images: tuple[Digest, ...] = ()


def make_plan(
    release: Release, *, registry: Registry, store: Store, progress: Progress, indexes: Mapping[Digest, Descriptor]
) -> Planned:
    """Decide where the bytes of a release come from; all from the registry, where that is better or nothing else works.

    indexes: where the registry has the indexes of other images of the recipe, by their SIF digests.
    """
    planner = _Planner(release, registry, store, progress, indexes)
    try:
        planned = planner.plan()
    except (RegistryFailure, NotFound, AccessDenied):  # no index to be had
        planned = None
    except (IntegrityFailure, OSError) as error:
        progress.note(f"the whole image is fetched: {error}")
        planned = None
    return planned or Planned(Plan.whole(release.sif), planner.fetched)


def forget_indexes(planned: Planned, store: Store, fetched: int) -> None:
    """Keep the indexes of a plan no longer when all bytes were fetched in the end: one of them was wrong."""
    for digest in planned.images if fetched >= planned.plan.wanted.size else ():
        forget(store, digest)


@dataclass
class _Planner:
    """fetched, indexes: as ``Planned`` and ``make_plan`` call them."""

    release: Release
    registry: Registry
    store: Store
    progress: Progress
    indexes: Mapping[Digest, Descriptor]
    fetched: int = 0

    def plan(self) -> Planned | None:
        """A plan that copies; None where a full pull is better."""
        wanted, descriptor = self.release.sif, self.release.chunks
        if descriptor is None or wanted.size < _WORTH_IT or descriptor.size > largest_index(wanted.size):
            return None
        near = seeds(self.store, self.release.recipe, wanted)
        if not near:
            return None
        want, took = self._index(wanted, descriptor)
        speed = min(_FASTEST, _WARMED_UP * descriptor.size / took)
        having = self._indexed(near, wanted.size / speed)
        found = coalesced(match(want, [index for _, index in having]), _GAP)
        plan = Plan(wanted, tuple(_located(found, [seed.path for seed, _ in having])))
        if not pays(plan, took, speed, self.registry.connections):
            return None
        return Planned(plan, self.fetched, (wanted.digest, *(seed.digest for seed, _ in having)))

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


def _located(pieces: Iterable[Piece], paths: Sequence[Path]) -> Iterator[Span]:
    for offset, length, seed, at in pieces:
        yield Span(offset, length) if seed is None else Span(offset, length, paths[seed], at)


def pays(plan: Plan, took: float, speed: float, connections: int) -> bool:
    """Whether a plan is sooner done than a full pull.

    took: seconds of one request; speed: bytes a second.
    """
    requests = sum(span.file is None for span in plan.spans)
    copied = plan.wanted.size - plan.missing
    asking = requests * max(took / connections, _REQUEST)
    return copied / speed > asking + copied / _COPYING + len(plan.spans) * _PIECE

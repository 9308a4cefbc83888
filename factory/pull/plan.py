"""Plan a pull: which bytes are copied from local images and which are fetched, by their chunk indexes.

The release's index lists the image's chunks, the indexes of local images say where the same chunks are on disk. Indexes
are not trusted: a wrong or hostile one costs a full pull, never wrong bytes, since the whole image is hashed.
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

_WORTH_IT = 4 * 1024 * 1024  # bytes of an image; a smaller one is fetched faster than its index
_GAP = 32 * 1024  # bytes; a local piece shorter than this between two fetched ones is fetched with them
_USUAL_WAIT = 0.05  # seconds; assumed round trip when the index was not fetched
_INDEXING = 250e6  # bytes a second at which a local image is indexed, a cautious guess
_WARMED_UP = 8  # an image transfers this many times faster than an index, whose time is mostly round trip
_FASTEST = 1e9  # bytes a second of any network
_COPYING = 1e9  # bytes a second at which local images are copied
_REQUEST = 0.002  # seconds per request, in addition to the round trip
_PIECE = 0.0001  # seconds per piece


@dataclass(frozen=True)
class Planned:
    """A plan and its cost.

    fetched: bytes of chunk indexes fetched from the registry. images: the images whose indexes the plan uses.
    """

    plan: Plan
    fetched: int = 0
    images: tuple[Digest, ...] = ()


def make_plan(
    release: Release, *, registry: Registry, store: Store, progress: Progress, indexes: Mapping[Digest, Descriptor]
) -> Planned:
    """Decide where the bytes of a release come from. The plan fetches everything if that is faster or no index works.

    indexes: the registry's chunk indexes of the recipe's other images, by SIF digest.
    """
    planner = _Planner(release, registry, store, progress, indexes)
    try:
        planned = planner.plan()
    except (RegistryFailure, NotFound, AccessDenied):  # there is no index
        planned = None
    except (IntegrityFailure, OSError) as error:
        progress.note(f"fetching the whole image: {error}")
        planned = None
    return planned or Planned(Plan.whole(release.sif), planner.fetched)


def forget_indexes(planned: Planned, store: Store, fetched: int) -> None:
    """Delete the kept indexes of a plan if all bytes were fetched in the end: one of the indexes was wrong."""
    for digest in planned.images if fetched >= planned.plan.wanted.size else ():
        forget(store, digest)


@dataclass
class _Planner:
    """State of ``make_plan``. fetched: see ``Planned``."""

    release: Release
    registry: Registry
    store: Store
    progress: Progress
    indexes: Mapping[Digest, Descriptor]
    fetched: int = 0

    def plan(self) -> Planned | None:
        """Return a plan that copies, or None if a full pull is better."""
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
        """Return the index of the wanted image, and the seconds that fetching it took.

        The index is kept at once, so a pull that is killed and repeated has it. Raises IntegrityFailure if it is wrong.
        """
        kept = remembered(self.store, wanted.digest, largest_index(wanted.size))
        if kept is not None and Digest.of(kept) == descriptor.digest:
            return ChunkIndex.decode(kept), _USUAL_WAIT
        asked = monotonic()
        content = self._fetch(descriptor)
        took = monotonic() - asked
        want = ChunkIndex.decode(content)
        if (want.digest, want.size) != (wanted.digest, wanted.size):
            raise IntegrityFailure("the chunk index belongs to another image", why=f"it describes {want.digest}")
        remember(self.store, wanted.digest, content)
        return want, max(took, 1e-6)

    def _fetch(self, descriptor: Descriptor) -> bytes:
        blocks = self.registry.blob(self.release.recipe, descriptor)
        content = read_all(blocks, descriptor.size)
        self.fetched += len(content)
        return content

    def _indexed(self, near: Iterable[Seed], patience: float) -> list[tuple[Seed, ChunkIndex]]:
        """Return the seeds that have an index. Until one is found, missing indexes are fetched or computed.

        patience: seconds that a full pull takes.
        """
        found: list[tuple[Seed, ChunkIndex]] = []
        for seed in near:
            with contextlib.suppress(OSError, IntegrityFailure):  # missing or damaged: use the other seeds
                size = seed.path.stat().st_size
                index = _sound(remembered(self.store, seed.digest, largest_index(size)) or b"", seed, size)
                index = index or (None if found else self._made(seed, size, patience))
                if index is not None:
                    found.append((seed, index))
        return found

    def _made(self, seed: Seed, size: int, patience: float) -> ChunkIndex | None:
        """Return the index of a local image. It is fetched, or computed if that is faster than a full pull."""
        there = self.indexes.get(seed.digest) if seed.recipe == self.release.recipe else None
        content = b""
        if there is not None and there.size <= largest_index(size):
            try:
                content = self._fetch(there)
            except NotFound:
                pass
            except FactoryError:  # requests for the others would fail too, each after a delay
                self.indexes = {}
        if not content and size / _INDEXING < patience:
            self.progress.note(f"indexing {seed.recipe} to find bytes to reuse")
            content = index_image(seed.path, self.progress).encode()
        index = _sound(content, seed, size)
        if index is not None:
            remember(self.store, seed.digest, content)
        return index


def _sound(content: bytes, seed: Seed, size: int) -> ChunkIndex | None:
    """Decode the index of a local image. None if it describes other bytes, as it does if the file is damaged."""
    try:
        index = ChunkIndex.decode(content)
    except IntegrityFailure:
        return None
    return index if (index.digest, index.size) == (seed.digest, size) else None


def _located(pieces: Iterable[Piece], paths: Sequence[Path]) -> Iterator[Span]:
    for offset, length, seed, at in pieces:
        yield Span(offset, length) if seed is None else Span(offset, length, paths[seed], at)


def pays(plan: Plan, took: float, speed: float, connections: int) -> bool:
    """Return whether a plan is faster than a full pull. took: seconds of one request; speed: bytes a second."""
    requests = sum(span.file is None for span in plan.spans)
    copied = plan.wanted.size - plan.missing
    asking = requests * max(took / connections, _REQUEST)
    return copied / speed > asking + copied / _COPYING + len(plan.spans) * _PIECE

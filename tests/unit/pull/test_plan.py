from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory.delta.index import ChunkIndex, index_image
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag
from factory.pull import plan as plan_module
from factory.pull.plan import Planned, forget_indexes, make_plan
from factory.records.release import CHUNK_INDEX, Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import SIF_LAYER, Registry
from factory.store.fetch.partial import open_partial
from factory.store.fetch.plan import Plan, Span
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import transfer
from factory.store.refs import StoredImage
from factory.store.seeds import remember, remembered, seeds, stale_indexes
from factory.store.store import Store
from tests.unit.delta.images import image, noise
from tests.unit.parts import QUIET, Heard, Watched, folder_registry
from tests.unit.store.stored import ingest

FILES = [noise(30_000 + number, number) for number in range(40)]
OLD = image(*FILES)
NEW = image(*FILES[:20], noise(31_111, 99), *FILES[20:], created=1800000000)


@pytest.fixture(autouse=True)
def small_images_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_WORTH_IT", 100_000)
    monkeypatch.setattr(plan_module, "_FASTEST", 1e6)  # the network counts as slow


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def released(registry: Registry, tmp_path: Path, content: bytes = NEW, index: bytes | None = None) -> Release:
    """Publish a release with its chunk index, or with these bytes instead of it."""
    path = tmp_path / "published.sif"
    path.write_bytes(content)
    document = index_image(path).encode() if index is None else index
    chunks = Descriptor.of(CHUNK_INDEX, document)
    registry.push_blob("tool", document, chunks, QUIET)
    sif = Descriptor.of(SIF_LAYER, content)
    return Release("tool", BuildTag("1.0", 2), Digest.of(b"manifest"), sif, "amd64", "", chunks=chunks)


def stored(store: Store, content: bytes = OLD, recipe: str = "tool", pulled: str = "2026-01-01T00:00:00Z") -> Digest:
    """Put an image into the store."""
    sif = Descriptor.of(SIF_LAYER, content)
    ingest(store, sif, lambda offset: [content[offset:]], QUIET)
    store.record(StoredImage(recipe, "1.0-1", "", sif.digest, sif.digest, sif.size, pulled), ["1.0-1"])
    return sif.digest


def planned(
    release: Release,
    registry: Registry,
    store: Store,
    progress: Progress = QUIET,
    indexes: Mapping[Digest, Descriptor] = MappingProxyType({}),
) -> Planned:
    return make_plan(release, registry=registry, store=store, progress=progress, indexes=indexes)


def is_whole(made: Planned) -> bool:
    return made.plan == Plan.whole(made.plan.wanted) and made.images == ()


def put_together(plan: Plan) -> bytes:
    """Assemble the image by a plan, and take the fetched spans from the original."""
    assert plan.copies
    result = bytearray()
    for offset, length, file, at in plan.spans:
        assert offset == len(result)
        result += NEW[offset : offset + length] if file is None else file.read_bytes()[at : at + length]
    return bytes(result)


def test_bytes_of_an_older_image_of_the_recipe_are_not_fetched(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    stored(store)
    plan = planned(released(registry, tmp_path), registry, store).plan
    assert put_together(plan) == NEW
    assert plan.missing < 31_111 + 60_000 < len(NEW) / 10


def test_indexes_are_kept_and_the_next_pull_fetches_only_its_own(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    old = stored(store)
    release = released(registry, tmp_path)
    assert release.chunks is not None
    made = planned(release, registry, store)
    forget_indexes(made, store, 100)
    for digest, content in ((old, OLD), (release.sif.digest, NEW)):
        kept = remembered(store, digest, 1 << 20)
        assert kept is not None
        assert ChunkIndex.decode(kept).digest == Digest.of(content)
    assert made.fetched == release.chunks.size
    again = planned(release, registry, store)
    assert again.plan.copies
    assert again.fetched == 0, "a pull that was killed does not fetch it twice"


def test_no_index_is_kept_when_all_bytes_were_fetched_in_the_end(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    old = stored(store)
    release = released(registry, tmp_path)
    forget_indexes(planned(release, registry, store), store, release.sif.size)
    assert remembered(store, old, 1 << 20) is None
    assert remembered(store, release.sif.digest, 1 << 20) is None


def test_the_index_of_an_older_image_is_fetched_if_the_registry_has_it(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    old = stored(store)
    there = released(registry, tmp_path, OLD).chunks
    release = released(registry, tmp_path)
    assert there is not None
    assert release.chunks is not None
    calls: list[str] = []
    watched = Watched(registry, lambda call: calls.append(call.about) if call.begins else None)
    made = planned(release, watched, store, indexes={old: there})
    assert put_together(made.plan) == NEW
    assert calls == [str(release.chunks.digest), str(there.digest)]
    assert made.fetched == release.chunks.size + there.size


def test_without_local_images_no_index_is_requested(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    calls: list[str] = []
    release = released(registry, tmp_path)
    watched = Watched(registry, lambda call: calls.append(call.about))
    assert is_whole(planned(release, watched, store))
    assert calls == []


def test_old_releases_without_an_index_are_fetched_whole(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    stored(store)
    release = replace(released(registry, tmp_path), chunks=None)
    assert is_whole(planned(release, registry, store))


def test_a_missing_index_costs_one_request(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    stored(store)
    release = replace(released(registry, tmp_path), chunks=Descriptor.of(CHUNK_INDEX, b"lost"))
    heard = Heard()
    assert is_whole(planned(release, registry, store, heard))
    assert heard.notes == []


def index_of(content: bytes, tmp_path: Path) -> ChunkIndex:
    (tmp_path / "indexed.sif").write_bytes(content)
    return index_image(tmp_path / "indexed.sif")


@pytest.mark.parametrize("what", ["another image's", "cut off", "no index", "a chunk of no bytes", "longer than told"])
def test_a_wrong_index_gives_a_notice_and_a_full_fetch(
    tmp_path: Path, registry: LayoutRegistry, store: Store, what: str
) -> None:
    stored(store)
    right = index_of(NEW, tmp_path).encode()
    wrong = {
        "another image's": index_of(OLD, tmp_path).encode(),
        "cut off": right[:-1],
        "no index": b"<html>",
        "a chunk of no bytes": right[:56] + bytes(4) + right[60:],
        "longer than told": right + b"x",
    }[what]
    heard = Heard()
    made = planned(released(registry, tmp_path, index=wrong), registry, store, heard)
    assert is_whole(made)
    assert len(heard.notes) == 1
    assert heard.notes[0].startswith("fetching the whole image: ")
    forget_indexes(made, store, 0)
    assert remembered(store, Digest.of(NEW), 1 << 20) is None


def test_an_index_that_claims_to_be_huge_is_not_requested(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    stored(store)
    release = replace(released(registry, tmp_path), chunks=Descriptor(CHUNK_INDEX, Digest.of(b"x"), len(NEW)))
    calls: list[str] = []
    watched = Watched(registry, lambda call: calls.append(call.about))
    assert is_whole(planned(release, watched, store))
    assert calls == []


def test_a_kept_index_of_another_image_is_not_used(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    old = stored(store)
    remember(store, old, index_of(NEW, tmp_path).encode())
    assert put_together(planned(released(registry, tmp_path), registry, store).plan) == NEW


def test_a_damaged_image_is_not_reused_when_it_is_indexed(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    path = store.blob(stored(store))
    path.chmod(0o644)
    damaged = bytearray(OLD)
    damaged[600_000] ^= 1
    path.write_bytes(damaged)
    assert is_whole(planned(released(registry, tmp_path), registry, store))


def test_an_image_with_nothing_in_common_is_fetched_whole(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    stored(store, image(*(noise(30_000, number) for number in range(200, 240))))
    assert is_whole(planned(released(registry, tmp_path), registry, store))


def test_the_recipes_newest_images_are_the_first_seeds(store: Store) -> None:
    digests = {
        name: stored(store, name.encode(), recipe, pulled)
        for name, recipe, pulled in (
            ("other", "other", "2026-03-01T00:00:00Z"),
            ("older", "tool", "2026-01-01T00:00:00Z"),
        )
    }
    found = [seed.digest for seed in seeds(store, "tool", Descriptor.of(SIF_LAYER, b"new"))]
    assert found == [digests["older"], digests["other"]]
    assert seeds(store, "tool", Descriptor.of(SIF_LAYER, b"older"))[0].digest == digests["other"]


def test_indexes_of_deleted_images_are_stale(store: Store) -> None:
    here = stored(store, b"here")
    gone = Digest.of(b"gone")
    for digest in (here, gone):
        remember(store, digest, b"index")
    (store.root / "chunks/else").write_text("")
    assert [path.name for path in stale_indexes(store)] == sorted(["else", f"{gone.hex}.chunks"])


def test_a_distant_registry_does_not_get_a_thousand_requests() -> None:
    wanted = Descriptor(SIF_LAYER, Digest.of(b"x"), 10_000_000)
    seed = Path("seed")
    alternating = tuple(Span(at, 1000, seed if at % 2000 else None, 0) for at in range(0, wanted.size, 1000))
    assert not plan_module.pays(Plan(wanted, alternating), took=0.2, speed=10e6, connections=4)
    few = (Span(0, 1000), Span(1000, wanted.size - 1000, seed, 0))
    assert plan_module.pays(Plan(wanted, few), took=0.2, speed=10e6, connections=4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 1200), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    cut=st.integers(-40, 40),
)
def test_any_change_of_an_index_still_ends_with_the_right_bytes(
    tmp_path: Path, registry: LayoutRegistry, changes: list[tuple[int, bytes]], cut: int
) -> None:
    document = bytearray(index_of(NEW, tmp_path).encode())
    for at, new in changes:
        document[at : at + len(new)] = new
    document = document[:cut] if cut < 0 else document + bytes(cut)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        store = Store(Path(folder))
        stored(store)
        made = planned(released(registry, tmp_path, index=bytes(document)), registry, store)
        source = Source(lambda offset, length: [NEW[offset : None if length is None else offset + length]], 2)
        with open_partial(store, made.plan.wanted, QUIET) as partial:
            assert partial is not None
            transferred = transfer(made.plan, source, partial, QUIET)
            path = partial.publish()
        forget_indexes(made, store, transferred)
        assert path is not None
        assert path.read_bytes() == NEW
        assert list(store.leftovers()) == []

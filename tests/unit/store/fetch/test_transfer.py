from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, OnlyWhole, RegistryFailure
from factory.io import copying
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.store.fetch import pool as pool_module
from factory.store.fetch import transfer as transfer_module
from factory.store.fetch.partial import open_partial
from factory.store.fetch.plan import Plan, Span
from factory.store.fetch.pool import Source as BlobSource
from factory.store.fetch.transfer import transfer
from factory.store.store import Store
from factory.store.verify import verify
from tests.limits import allow_threads
from tests.unit.delta.images import noise
from tests.unit.parts import Heard

CONTENT = noise(200_000)
WANTED = Descriptor.of("a/b", CONTENT)
MISSING = [(0, 10_000), (60_000, 30_000), (199_000, 1_000)]


class Source:
    """Serves any part, and records the requests. fault: called with the offset of each block."""

    def __init__(self, fault: Callable[[int], None] = lambda _: None, content: bytes = CONTENT) -> None:
        self.asked: list[tuple[int, int]] = []
        self.whole: list[int] = []
        self.sent = 0
        self.content = content
        self._fault = fault
        self._lock = threading.Lock()

    def read(self, offset: int, length: int | None) -> Iterator[bytes]:
        return self._rest(offset) if length is None else self._part(offset, length)

    def _part(self, offset: int, length: int) -> Iterator[bytes]:
        with self._lock:
            self.asked.append((offset, length))
        for at in range(offset, offset + length, 3_000):
            self._fault(at)
            block = self.content[at : min(at + 3_000, offset + length)]
            with self._lock:
                self.sent += len(block)
            yield block

    def _rest(self, offset: int) -> Iterator[bytes]:
        self.whole.append(offset)
        yield CONTENT[offset:]


@pytest.fixture(params=[None, 2, 0], ids=["threads", "two threads", "no threads"], autouse=True)
def few_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run every test as well where the system allows no more threads, or only some."""
    if request.param is not None:
        allow_threads(request.param, monkeypatch)
    return request.param is not None


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SMALLEST", "_LARGEST"):
        monkeypatch.setattr(pool_module, name, 7_000)
    monkeypatch.setattr(transfer_module, "_STRETCH", 9_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """A file with the image's bytes, shifted by 500, except for the missing ones."""
    path = tmp_path / "seed"
    content = bytearray(b"x" * 500 + CONTENT)
    for offset, length in MISSING:
        content[offset + 500 : offset + 500 + length] = bytes(length)
    path.write_bytes(content)
    return path


def spans_from(seed: Path, missing: Sequence[tuple[int, int]] = MISSING) -> list[Span]:
    """A plan that fetches the missing bytes and copies the rest from the seed."""
    found, at = [], 0
    for offset, length in [*missing, (len(CONTENT), 0)]:
        if at < offset:
            found.append(Span(at, offset - at, seed, at + 500))
        if length:
            found.append(Span(offset, length))
        at = offset + length
    return found


def carry_out(store: Store, plan: Plan, source: BlobSource, heard: Silent | None = None) -> tuple[Path, int]:
    """Carry out a plan as a pull does."""
    with open_partial(store, plan.wanted, Silent()) as partial:
        assert partial is not None
        fetched = transfer(plan, source, partial, heard or Silent())
        path = partial.publish()
    assert path is not None
    return path, fetched


def ingest(store: Store, source: Source, spans: Sequence[Span] | None, heard: Silent | None = None) -> int:
    plan = Plan.whole(WANTED) if spans is None else Plan(WANTED, tuple(spans))
    path, fetched = carry_out(store, plan, BlobSource(source.read, 3), heard)
    assert path.read_bytes() == CONTENT
    assert list(store.leftovers()) == []
    assert verify(store, Silent()) == (1, ())
    return fetched


def test_only_what_is_missing_is_fetched(store: Store, seed: Path) -> None:
    source = Source()
    assert ingest(store, source, spans_from(seed)) == sum(length for _, length in MISSING)
    assert source.whole == []
    asked = sorted(source.asked)
    assert asked == [
        (0, 7000),
        (7000, 3000),
        *((60_000 + at, min(7000, 30_000 - at)) for at in range(0, 30_000, 7000)),
        (199_000, 1000),
    ]


def test_an_image_of_which_everything_is_here_is_not_fetched_at_all(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT[:90_000])
    (tmp_path / "b").write_bytes(b"-" + CONTENT[90_000:])
    source = Source()
    assert ingest(store, source, [Span(0, 90_000, tmp_path / "a", 0), Span(90_000, 110_000, tmp_path / "b", 1)]) == 0
    assert (source.asked, source.whole) == ([], [])


def test_without_a_plan_the_image_is_fetched_whole(store: Store) -> None:
    source = Source()
    assert ingest(store, source, None) == len(CONTENT)
    assert source.whole == [0]


def test_a_seed_that_lies_costs_one_full_fetch_and_a_notice(store: Store, seed: Path) -> None:
    content = bytearray(seed.read_bytes())
    content[150_000] ^= 1
    seed.write_bytes(content)
    source, heard = Source(), Heard()
    assert ingest(store, source, spans_from(seed), heard) == len(CONTENT) + 41_000
    assert source.whole == [0]
    (note,) = heard.notes
    assert note.startswith("local images gave wrong bytes, fetching the whole image")


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: os.truncate(path, 100_000)])
def test_a_seed_that_is_gone_or_cut_off_costs_a_full_fetch(
    store: Store, seed: Path, spoil: Callable[[Path], None]
) -> None:
    spans = spans_from(seed)
    spoil(seed)
    source, heard = Source(), Heard()
    ingest(store, source, spans, heard)
    assert source.whole == [0]
    assert len(heard.notes) == 1


def test_a_registry_that_serves_no_parts_is_asked_for_the_rest_without_a_word(store: Store, seed: Path) -> None:
    def refuse(_: int) -> None:
        raise OnlyWhole("no ranges")

    seed.write_bytes(b"x" * 500 + CONTENT)
    source, heard = Source(refuse), Heard()
    spans = spans_from(seed, MISSING[1:])
    assert ingest(store, source, spans, heard) == len(CONTENT) - 60_000
    assert (source.whole, heard.notes) == ([60_000], [])


def test_a_failure_keeps_what_came_in_order_and_the_next_run_goes_on_there(store: Store, seed: Path) -> None:
    def fault(at: int) -> None:
        if at >= 80_000:
            raise RegistryFailure("the network is gone")

    with pytest.raises(RegistryFailure, match="the network is gone"):
        ingest(store, Source(fault), spans_from(seed))
    (partial,) = store.leftovers()
    kept = partial.stat().st_size
    assert partial.read_bytes() == CONTENT[:kept]
    assert 70_000 <= kept <= 81_000
    again = Source()
    assert ingest(store, again, spans_from(seed)) == 91_000 - kept
    assert min(again.asked)[0] == kept


def test_a_plan_that_leaves_a_gap_is_no_plan(seed: Path) -> None:
    for spans in ([Span(0, 10)], [*spans_from(seed)[:2], *spans_from(seed)[3:]], [Span(0, 0), *spans_from(seed)]):
        with pytest.raises(IntegrityFailure, match="does not cover the image"):
            Plan(WANTED, tuple(spans))


def test_the_beginning_that_an_earlier_run_left_is_kept(store: Store, seed: Path) -> None:
    partial = store.root / "partial" / f"{WANTED.digest.hex}.{os.getuid()}.dead"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:70_000])
    source = Source()
    assert ingest(store, source, spans_from(seed)) == 21_000
    assert min(source.asked) == (70_000, 7_000)


def test_wrong_parts_end_with_one_full_fetch(store: Store, seed: Path) -> None:
    source = Source(content=CONTENT[:61_000] + b"?" + CONTENT[61_001:])
    ingest(store, source, spans_from(seed), Heard())
    assert source.whole == [0]


def test_more_bytes_than_a_part_has_are_refused(store: Store, seed: Path) -> None:
    source = Source()

    def more(offset: int, length: int | None) -> Iterator[bytes]:
        yield from source.read(offset, length)
        if length is not None:
            yield b"more"

    heard = Heard()
    path, _ = carry_out(store, Plan(WANTED, tuple(spans_from(seed))), BlobSource(more, 3), heard)
    assert path.read_bytes() == CONTENT
    assert "a part of the image has the wrong size" in heard.notes[0] or "got more" in heard.notes[0]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_not_copied_from(store: Store, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "seed")
    source, heard = Source(), Heard()
    assert ingest(store, source, spans_from(place), heard) >= len(CONTENT)
    assert source.whole == [0]
    assert len(heard.notes) == 1


def test_a_bad_sector_under_a_seed_costs_a_full_fetch(
    store: Store, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(copying, "copy_range", broken)
    source, heard = Source(), Heard()
    ingest(store, source, spans_from(seed), heard)
    assert source.whole == [0]
    assert "Input/output error" in heard.notes[0]


def test_progress_ends_at_all_of_it_although_parts_came_in_vain(store: Store, seed: Path, *, few_threads: bool) -> None:
    came = threading.Event()

    def fault(at: int) -> None:
        if at == 0:
            came.wait(0.1 if few_threads else 10)  # one after the other, nothing comes meanwhile
            raise OnlyWhole("no ranges any more")
        if at == 198_000 or at >= 199_000:
            came.set()

    class Counted(Silent):
        done = 0

        def advance(self, count: int) -> None:
            self.done += count

    counted = Counted()
    ingest(store, Source(fault), spans_from(seed), counted)
    assert counted.done == len(CONTENT)


def test_files_of_ended_downloads_do_not_stay_and_neither_do_those_of_older_versions(store: Store, seed: Path) -> None:
    folder = store.root / "partial"
    folder.mkdir(parents=True)
    for name in ("one", "two.ahead", "three", "three.ahead"):
        (folder / f"{WANTED.digest.hex}.{os.getuid()}.{name}").write_bytes(b"")
    ingest(store, Source(), spans_from(seed))


def test_a_wrong_image_is_refused_in_the_end(store: Store, seed: Path) -> None:
    source = Source()
    wanted = Descriptor.of("a/b", CONTENT[::-1])
    with pytest.raises(IntegrityFailure):
        carry_out(store, Plan(wanted, tuple(spans_from(seed))), BlobSource(source.read, 3), Heard())
    assert list(store.leftovers()) == []
    assert not store.blob(wanted.digest).exists()

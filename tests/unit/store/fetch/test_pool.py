from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, OnlyWhole, RegistryFailure
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.store.fetch import pool as pool_module
from factory.store.fetch.plan import Span
from factory.store.fetch.pool import Pool, rest
from factory.store.fetch.pool import Source as BlobSource
from factory.store.fetch.transfer import fetch_whole
from factory.store.store import Store
from factory.store.verify import verify
from tests.limits import allow_threads

PART = 10_000
BLOCK = 3_000
CONTENT = bytes(range(256)) * 800  # 21 parts
WANTED = Descriptor.of("a/b", CONTENT)

Fault = Callable[[int], None]


class Source:
    """Serves parts from several threads, in blocks; records requests, and how many ran at once."""

    def __init__(self, content: bytes = CONTENT, fault: Fault = lambda _: None) -> None:
        self.content = content
        self.fault = fault
        self.asked: list[tuple[int, int]] = []
        self.most = self._active = 0
        self._lock = threading.Lock()

    def read(self, offset: int, length: int | None) -> Iterator[bytes]:
        length = len(self.content) - offset if length is None else length
        with self._lock:
            self.asked.append((offset, length))
            self._active += 1
            self.most = max(self.most, self._active)
        try:
            for at in range(offset, offset + length, BLOCK):
                time.sleep(0.001)
                self.fault(at)
                yield self.content[at : min(at + BLOCK, offset + length)]
        finally:
            with self._lock:
                self._active -= 1


class Counted(Silent):
    def __init__(self) -> None:
        self.done = 0
        self._lock = threading.Lock()

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:  # noqa: ARG002
        assert (label, total) == ("pull", len(CONTENT))
        self.done = 0

    def advance(self, count: int) -> None:
        with self._lock:
            self.done += count


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use parts of 10 kB, and always treat the network as slow."""
    for name, value in {"WORTH_IT": 2 * PART, "_SMALLEST": PART, "_LARGEST": PART, "_FAST": 1e18}.items():
        monkeypatch.setattr(pool_module, name, value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def ingest(store: Store, source: Source, progress: Silent, connections: int = 4) -> int:
    return fetch_whole(store, WANTED, BlobSource(source.read, connections), progress)[1]


def partial_of(store: Store) -> bytes:
    (path,) = store.leftovers()
    return path.read_bytes()


def fails_at(place: int, error: BaseException) -> Fault:
    def fault(at: int) -> None:
        if at <= place < at + BLOCK:
            raise error

    return fault


@pytest.mark.parametrize("connections", [2, 4, 10])
def test_parts_are_put_together_in_their_order_whatever_the_order_they_come_in(store: Store, connections: int) -> None:
    late = {PART: 0.05, 5 * PART: 0.05}
    source, heard = Source(fault=lambda at: time.sleep(late.get(at, 0))), Counted()
    assert ingest(store, source, heard, connections) == len(CONTENT)
    assert store.blob(WANTED.digest).read_bytes() == CONTENT
    assert heard.done == len(CONTENT)
    assert source.most <= connections
    assert sorted(source.asked) == [(at, min(PART, len(CONTENT) - at)) for at in range(0, len(CONTENT), PART)]
    assert verify(store, Silent()) == (1, ())


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_an_image_arrives_where_few_threads_are_allowed(
    store: Store, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    allow_threads(count, monkeypatch)
    source, heard = Source(), Counted()
    assert ingest(store, source, heard) == len(CONTENT)
    assert store.blob(WANTED.digest).read_bytes() == CONTENT
    assert heard.done == len(CONTENT)
    assert source.most <= max(1, count)
    assert sorted(source.asked) == [(at, min(PART, len(CONTENT) - at)) for at in range(0, len(CONTENT), PART)]


@pytest.mark.parametrize("place", [0, PART + 1, 7 * PART + 1])
def test_a_failure_without_threads_keeps_what_came_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    allow_threads(0, monkeypatch)
    with pytest.raises(RegistryFailure, match="the connection broke"):
        ingest(store, Source(fault=fails_at(place, RegistryFailure("the connection broke"))), Silent())
    kept = partial_of(store)
    assert kept == CONTENT[: len(kept)]
    assert place - BLOCK <= len(kept) <= place


def test_workers_do_not_run_away_from_a_reader_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MEMORY", 5 * PART)
    source = Source()
    blocks = rest(BlobSource(source.read, 4), 0, len(CONTENT), Silent())
    for _ in range(5):  # the first part, which comes alone, and one block of the next
        next(blocks)
    time.sleep(0.3)
    assert max(at for at, _ in source.asked) == PART + 4 * PART
    blocks.close()


def test_a_small_image_and_one_connection_take_one_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    assert ingest(store, source, Silent(), connections=1) == len(CONTENT)
    assert source.asked == [(0, len(CONTENT))]
    monkeypatch.setattr(pool_module, "WORTH_IT", len(CONTENT) + 1)
    other = Source()
    ingest(Store(store.root / "other"), other, Silent())
    assert other.asked == [(0, len(CONTENT))]


def test_a_network_that_is_as_fast_as_hashing_gets_one_connection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_FAST", 0)
    source = Source()
    ingest(store, source, Silent())
    assert source.asked == [(0, PART), (PART, len(CONTENT) - PART)]
    assert source.most == 1


@pytest.mark.parametrize("place", [0, PART + 1, 7 * PART + 1, len(CONTENT) - 1])
def test_one_failing_part_ends_all_and_what_came_before_it_is_kept(store: Store, place: int) -> None:
    source, heard = Source(fault=fails_at(place, RegistryFailure("the connection broke"))), Counted()
    threads = threading.active_count()
    with pytest.raises(RegistryFailure, match="the connection broke"):
        ingest(store, source, heard)
    assert threading.active_count() == threads
    kept = partial_of(store)
    assert kept == CONTENT[: len(kept)]
    assert place // PART * PART - 4 * PART <= len(kept) <= place
    assert heard.done == len(kept)
    again = Source()
    assert ingest(store, again, Silent()) == len(CONTENT) - len(kept)
    assert min(at for at, _ in again.asked) == len(kept)
    assert store.blob(WANTED.digest).read_bytes() == CONTENT


def test_of_several_failures_one_is_raised(store: Store) -> None:
    def fault(at: int) -> None:
        if at >= PART:
            raise RegistryFailure(f"broke at {at // PART}")

    with pytest.raises(RegistryFailure, match="broke at"):
        ingest(store, Source(fault=fault), Silent())


def test_an_interrupt_ends_the_workers_and_keeps_what_came_in_order(store: Store) -> None:
    class Interrupting(Counted):
        def advance(self, count: int) -> None:
            super().advance(count)
            if threading.current_thread() is threading.main_thread() and count > 0:
                raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        ingest(store, Source(), Interrupting())
    assert threading.active_count() == threads
    source = Source()
    blocks = rest(BlobSource(source.read, 4), 0, len(CONTENT), Silent())
    for _ in range(6):
        next(blocks)
    blocks.close()
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_worker_that_waits_for_the_network_holds_nobody_up(store: Store) -> None:
    stuck = threading.Event()

    def fault(at: int) -> None:
        if at == 3 * PART:
            stuck.wait(30)
        if at == 4 * PART:
            raise RegistryFailure("the connection broke")

    began = time.monotonic()
    with pytest.raises(RegistryFailure):
        ingest(store, Source(fault=fault), Silent())
    assert time.monotonic() - began < 25  # the stuck worker waits for 30 s
    kept = partial_of(store)
    stuck.set()
    time.sleep(0.1)
    assert partial_of(store) == kept == CONTENT[: len(kept)]


def test_where_there_are_no_parts_the_whole_comes_over_one_connection(store: Store) -> None:
    class Whole(Source):
        def read(self, offset: int, length: int | None) -> Iterator[bytes]:
            if offset and length is not None:
                raise OnlyWhole("no parts here")
            return super().read(offset, length)

    source, heard = Whole(), Counted()
    assert ingest(store, source, heard) == len(CONTENT)
    assert source.asked == [(0, PART), (PART, len(CONTENT) - PART)]
    assert heard.done == len(CONTENT)


@pytest.mark.parametrize("place", [0, 4 * PART + 5, len(CONTENT) - 1])
def test_a_wrong_byte_in_one_part_costs_one_clean_fetch_and_then_fails(store: Store, place: int) -> None:
    wrong = CONTENT[:place] + bytes([CONTENT[place] ^ 1]) + CONTENT[place + 1 :]
    source = Source(wrong)
    with pytest.raises(IntegrityFailure, match="content does not match its digest"):
        ingest(store, source, Silent())
    assert len(source.asked) == 2 * 21
    assert list(store.leftovers()) == []
    assert not store.usable(WANTED)


@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_part_of_a_wrong_size_is_refused(store: Store, change: bytes) -> None:
    class Wrong(Source):
        def read(self, offset: int, length: int | None) -> Iterator[bytes]:
            yield from super().read(offset, None if length is None else length - 1)
            yield change

    with pytest.raises(IntegrityFailure, match="wrong size"):
        ingest(store, Wrong(), Silent())
    assert list(store.leftovers()) == []


def test_distant_spans_arrive_in_order_without_the_bytes_between_them() -> None:
    source = Source()
    spans = [Span(5, 100), Span(40_000, 2 * PART + 1), Span(len(CONTENT) - 7, 7)]
    with Pool(BlobSource(source.read, 3), spans, Silent()) as pool:
        for span in spans:
            assert b"".join(pool.blocks(span.length)) == CONTENT[span.offset : span.offset + span.length]
    assert sorted(source.asked) == [(5, 100), (40_000, PART), (50_000, PART), (60_000, 1), (len(CONTENT) - 7, 7)]

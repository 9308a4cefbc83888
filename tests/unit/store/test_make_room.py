"""Room on a node's disk for another staged copy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.store import leases
from factory.store.gc import make_room
from factory.store.leases import Job, Queue
from factory.store.store import Store
from tests.unit.store.stored import DAY, put, use

HOUR = 3600.0
SIZE = 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node")


def copies(store: Store, *hours: float) -> list[Digest]:
    """Make copies that were last used these hours from now: no file is older than its test."""
    found = []
    for number, after in enumerate(hours):
        found.append(put(store, bytes([number]) * SIZE))
        use(store, found[-1], -after * HOUR / DAY)
    return found


def left(store: Store) -> set[Digest]:
    return {digest for digest, _ in store.blobs()}


def room(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, missing: int = 0, after: float = 24, queue: Queue | None = None
) -> None:
    """Make room for copies in a folder that lacks some bytes."""
    full = sum(path.stat().st_size for _, path in store.blobs())

    def free(_: Path) -> int:
        return full - sum(path.stat().st_size for _, path in store.blobs())

    monkeypatch.setattr("factory.store.gc.files.free_space", free)
    now = time.time() + after * HOUR
    make_room(store, missing, idle=HOUR, queue=lambda: queue, progress=Silent(), now=now)


def test_copies_that_nobody_has_used_for_an_hour_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, recent = copies(store, 2, 23.5)
    room(store, monkeypatch)
    assert left(store) == {recent}


def test_where_space_is_short_the_least_recently_used_go_first_and_only_as_many_as_needed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle, oldest, newest = copies(store, 0.2, 0.1, 0.3)
    room(store, monkeypatch, after=0.5, missing=SIZE)
    assert left(store) == {middle, newest}
    assert oldest not in left(store)
    room(store, monkeypatch, after=0.5, missing=SIZE)
    assert left(store) == {newest}


def test_a_copy_that_a_process_uses_stays_however_short_space_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    used, free = copies(store, 0.1, 0.2)
    leases.take(store.root, used)
    room(store, monkeypatch, missing=100 * SIZE)
    assert left(store) == {used}
    assert free not in left(store)


def test_a_copy_of_a_job_stays_until_slurm_says_that_the_job_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (used,) = copies(store, 0.1)
    leases.take(store.root, used, Job("17", "cluster"), process=False)
    room(store, monkeypatch, after=2, missing=SIZE)
    room(store, monkeypatch, after=2, missing=SIZE, queue=Queue("cluster", frozenset({"17"})))
    assert left(store) == {used}
    room(store, monkeypatch, after=2, missing=SIZE, queue=Queue("cluster", frozenset({"18"})))
    assert left(store) == set()


def test_slurm_is_not_asked_while_there_is_space(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    copies(store, 1)
    monkeypatch.setattr("factory.store.gc.files.free_space", lambda _: 10**12)

    def ask() -> Queue | None:
        raise AssertionError

    make_room(store, SIZE, idle=HOUR, queue=ask, progress=Silent())


def test_an_empty_folder_has_nothing_to_remove(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    room(store, monkeypatch)
    assert not store.root.exists()

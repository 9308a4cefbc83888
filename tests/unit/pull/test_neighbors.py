from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from factory.oci.digest import Descriptor, Digest
from factory.pull.neighbors import Neighbors
from factory.pull.stage import Staged, stage
from factory.registry.protocol import SIF_LAYER
from factory.store.refs import StoredImage
from factory.store.store import Store
from tests.unit.parts import QUIET
from tests.unit.store.stored import ingest

CONTENT = b"the image " * 200_000
SIF = Descriptor.of(SIF_LAYER, CONTENT)
IMAGE = StoredImage("tool", "1.0-1", "oci:/x", Digest.of(b"m"), SIF.digest, SIF.size, "2024-05-01T12:00:00Z")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    ingest(store, SIF, lambda offset: [CONTENT[offset:]], QUIET)
    return store


def folder(store: Store, job: int) -> Path:
    """The private folder of a job on this node."""
    path = store.root.parent / f"disk/{job}/singfactory-{os.geteuid()}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def staged(store: Store, job: int) -> Staged:
    local = folder(store, job)
    return stage(IMAGE, store=store, local=local, progress=QUIET, neighbors=Neighbors(local, store))


def test_a_second_job_shares_the_file_of_the_first(store: Store) -> None:
    first, second = staged(store, 1), staged(store, 2)
    assert (first.copied, first.linked) == (len(CONTENT), False)
    assert (second.copied, second.linked) == (0, True)
    assert second.path.is_relative_to(folder(store, 2))
    assert second.path.samefile(first.path)
    first.path.unlink()
    assert second.path.read_bytes() == CONTENT
    assert staged(store, 2) == Staged(second.path, 0)


def test_many_jobs_at_once_make_one_copy(store: Store) -> None:
    done: list[Staged] = []
    threads = [threading.Thread(target=lambda job=job: done.append(staged(store, job))) for job in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.copied for one in done) == [0] * 7 + [len(CONTENT)]
    assert len({one.path.stat().st_ino for one in done}) == 1


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_to_is_not_used(store: Store, mode: int) -> None:
    first = staged(store, 1)
    folder(store, 1).chmod(mode)
    second = staged(store, 2)
    assert second.copied == len(CONTENT)
    assert not second.path.samefile(first.path)


def test_links_and_files_in_the_way_are_passed_over(store: Store) -> None:
    first = staged(store, 1)
    disk = folder(store, 1).parent.parent
    (disk / "link").mkdir()
    (disk / "link" / folder(store, 1).name).symlink_to(folder(store, 1))
    (disk / "file").write_text("")
    first.path.chmod(0o644)  # no longer what the store made
    assert staged(store, 2).copied == len(CONTENT)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_copy_of_another_user_is_not_used(store: Store) -> None:
    first = staged(store, 1)
    os.chown(first.path, 12345, 12345)
    assert staged(store, 2).copied == len(CONTENT)


def test_a_damaged_size_is_not_shared(store: Store) -> None:
    first = staged(store, 1)
    first.path.chmod(0o644)
    first.path.write_bytes(b"short")
    first.path.chmod(0o444)
    assert staged(store, 2).copied == len(CONTENT)

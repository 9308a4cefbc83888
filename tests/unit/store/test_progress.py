"""Work on whole images in a store counts their bytes; what else takes long is a step of its own."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from factory.io.locks import lock
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference
from factory.store.adopt import adopt
from factory.store.gc import Rules, collect
from factory.store.store import Store
from factory.store.trust import Trust
from factory.store.verify import verify
from tests.unit.parts import Recorded, sif_of
from tests.unit.store.stored import ingest, put

SIF = sif_of(bytes(3_000_000))
OTHER = b"another image" * 1000


def test_verify_is_one_step_over_all_images(tmp_path: Path) -> None:
    store, seen = Store(tmp_path / "store"), Recorded()
    put(store, SIF, "tool", "1")
    put(store, OTHER, "other", "1")
    assert verify(store, seen) == (2, ())
    assert seen.steps == [("verify", len(SIF) + len(OTHER), len(SIF) + len(OTHER))]


def test_adopting_counts_the_bytes_that_are_hashed_and_copied(tmp_path: Path) -> None:
    store, seen = Store(tmp_path / "store"), Recorded()
    source = tmp_path / "my.sif"
    source.write_bytes(SIF)
    source.chmod(0o666)  # others may write it: it has to be copied
    adopt(store, source, Reference.parse("mine:1"), seen)
    steps = seen.steps if len(seen.steps) == 2 else [("copy my.sif", len(SIF), len(SIF)), *seen.steps]  # a reflink
    assert steps == [("copy my.sif", len(SIF), len(SIF)), ("hash my.sif", len(SIF), len(SIF))]


def test_gc_names_what_it_removes(tmp_path: Path) -> None:
    store, seen = Store(tmp_path / "store"), Recorded()
    digest = put(store, SIF)
    collect(store, Rules(grace=0), queue=None, dry_run=True, progress=seen)
    collect(store, Rules(grace=0), queue=None, dry_run=False, progress=seen)
    assert [label for label, _, _ in seen.steps] == ["look through the store"] * 2 + ["collect garbage"]
    assert seen.lines == [f"remove {digest.short}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_the_one_hashing_of_another_users_image_counts_its_bytes(tmp_path: Path) -> None:
    store, seen = Store(tmp_path / "store"), Recorded()
    wanted = Descriptor.of("a/b", SIF)
    path, _ = ingest(store, wanted, lambda offset: [SIF[offset:]], Silent())
    os.chown(path, 41_234, 41_234)
    trusting = replace(store, trust=Trust(frozenset({41_234}), tmp_path / "notes", seen))
    assert trusting.usable(wanted) == path
    assert seen.steps == [(f"hash {Digest.of(SIF).short}", len(SIF), len(SIF))]


def test_waiting_for_a_lock_is_a_step_that_names_the_holder(tmp_path: Path) -> None:
    seen, path = Recorded(), tmp_path / "x.lock"
    held = threading.Event()

    def hold() -> None:
        with lock(path, 1, Silent()):
            held.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    with lock(path, 30, seen):
        holder.join()
    ((label, total, _),) = seen.steps
    assert label.startswith(f"waiting for process {os.getpid()} ")
    assert total is None

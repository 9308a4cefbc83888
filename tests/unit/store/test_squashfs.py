from __future__ import annotations

import time
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure
from factory.io import plain
from factory.io.progress import Silent
from factory.sif.header import read_sif_header
from factory.store.gc import Rules, collect
from factory.store.squashfs import squashfs_of
from factory.store.store import Store
from tests.unit.sif.packing import image as packed
from tests.unit.sif.packing import write
from tests.unit.store.stored import image, put


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    write(tmp_path / "root", "a/b", "text")
    return packed(tmp_path / "root").read_bytes()


def collected(store: Store) -> None:
    rules = Rules(keep=0)
    later = time.time() + 30 * 86400
    collect(store, rules, queue=None, dry_run=False, progress=Silent(), now=later)


def test_the_squashfs_is_the_partition_and_is_made_once(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path / "store")
    put(store, content, "tool", "1")
    path = squashfs_of(store, image(content, "tool", "1"), Silent())
    with plain.reading(store.blob(image(content, "tool", "1").sif_digest)) as file:
        system = read_sif_header(file, len(content), "").primary_system
    assert system is not None
    assert path.read_bytes() == content[system.offset : system.end]
    before = path.stat()
    assert squashfs_of(store, image(content, "tool", "1"), Silent()) == path
    assert path.stat().st_ino == before.st_ino
    path.chmod(0o644)
    path.write_bytes(b"cut off")
    assert squashfs_of(store, image(content, "tool", "1"), Silent()).read_bytes() == content[system.offset : system.end]


def test_the_squashfs_of_a_shared_image_is_in_the_users_store_and_stays_with_the_image(
    tmp_path: Path, content: bytes
) -> None:
    site = Store(tmp_path / "site")
    put(site, content, "tool", "1")
    mine = Store(tmp_path / "mine", (site.root,))
    path = squashfs_of(mine, image(content, "tool", "1"), Silent())
    assert path.is_relative_to(mine.root)
    collected(mine)
    assert path.exists()
    collected(site)
    collected(mine)
    assert not path.exists()


def test_something_else_in_its_place_is_refused(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path / "store")
    digest = put(store, content, "tool", "1")
    (store.root / "squashfs").mkdir()
    (store.root / f"squashfs/{digest.hex}.squashfs").symlink_to("/etc/passwd")
    with pytest.raises(IntegrityFailure, match="is not safe to use"):
        squashfs_of(store, image(content, "tool", "1"), Silent())

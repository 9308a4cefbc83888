from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from factory.errors import NotFound
from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.store import pins
from factory.store.by_path import reference_of
from factory.store.gc import Rules, collect
from factory.store.store import Store
from tests.unit.store.stored import put

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def named(store: Store, digest: Digest, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"runs {digest}\n")
    assert pins.pin(store, digest, file)
    return file


def gc(store: Store, days: float = 30) -> dict[str, str]:
    """Remove what may go after some days; return why the rest stays."""
    rules = Rules(keep=0)
    done = collect(store, rules, queue=None, dry_run=False, progress=Silent(), now=time.time() + days * DAY)
    return {one.path.name: one.why for one in done if one.keep and one.path.suffix == ".sif"}


def test_an_image_stays_while_a_file_names_it(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"one", "tool", "1")
    file = named(store, digest, tmp_path / "modules/tool/1.lua")
    assert gc(store) == {f"{digest.hex}.sif": f"named by {file}"}
    file.write_text("another image\n")
    assert gc(store) == {}
    assert pins.read(store.root) == ()


def test_an_image_stays_while_a_link_leads_to_it(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"one", "tool", "1")
    link = tmp_path / "tool.img"
    link.symlink_to(store.blob(digest))
    assert pins.pin(store, digest, link)
    assert list(gc(store)) == [f"{digest.hex}.sif"]
    link.unlink()
    assert gc(store) == {}


def test_a_file_that_cannot_be_seen_counts_for_a_while(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"one", "tool", "1")
    file = named(store, digest, tmp_path / "mounted/tool")
    file.parent.rename(tmp_path / "elsewhere")
    assert list(gc(store, days=3)) == [f"{digest.hex}.sif"]
    assert gc(store, days=8) == {}


@pytest.mark.parametrize("kind", ["folder", "pipe", "other link"])
def test_something_else_in_the_files_place_keeps_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    digest = put(store, b"one", "tool", "1")
    file = named(store, digest, tmp_path / "m/tool")
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    assert gc(store) == {}


def test_a_pin_that_is_no_pin_is_left_out(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"one", "tool", "1")
    named(store, digest, tmp_path / "tool")
    folder = store.root / pins.FOLDER
    for name, text in (
        ("b" * 12, "{"),
        ("c" * 12, '{"file": 7}'),
        ("d" * 12, '{"file": "relative"}'),
        ("e" * 12, "[]"),
    ):
        (folder / f"{digest.hex}.{name}.json").write_text(text)
    assert [pin.file for pin in pins.read(store.root)] == [tmp_path / "tool"]


def test_an_image_in_a_store_that_cannot_be_written_is_not_pinned(store: Store, tmp_path: Path) -> None:
    assert not pins.pin(store, Digest.of(b"absent"), tmp_path / "tool")


def test_the_path_of_a_blob_names_its_image_also_when_the_file_is_gone(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"one", "tool", "1")
    (tmp_path / "link").symlink_to(store.blob(digest))
    for path in (store.blob(digest), tmp_path / "link"):
        assert str(reference_of(store, path)) == f"ghcr.io/org/images/tool@{Digest.of(b'manifest of one')}"
    store.blob(digest).unlink()
    assert reference_of(store, store.blob(digest)).name == "tool"
    with pytest.raises(NotFound, match="is not an image of the store"):
        reference_of(store, tmp_path / "other.sif")

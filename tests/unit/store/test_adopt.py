from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, NotFound, UsageError
from factory.io import files
from factory.io.progress import Advance, Silent
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.store import adopt as adopt_module
from factory.store.adopt import Adopted, adopt
from factory.store.store import Store
from factory.store.verify import verify
from tests.unit.parts import sif_of
from tests.unit.store.stored import put

SIF = sif_of(b"image" * 1000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tool.sif"
    path.write_bytes(SIF)
    path.chmod(0o644)
    return path


def take(store: Store, source: Path, name: str = "tool") -> Adopted:
    return adopt(store, source, Reference.parse(name), Silent())


def test_an_adopted_file_is_an_image_of_the_store_without_a_second_copy(store: Store, source: Path) -> None:
    done = take(store, source)
    assert done.path == store.blob(Digest.of(SIF))
    assert done.path.read_bytes() == SIF
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o444
    assert done.way in ("link", "reflink")
    assert (done.path.stat().st_ino == source.stat().st_ino) is (done.way == "link")
    assert store.find(Reference.parse("tool")) == store.find(Reference.parse("tool:adopted")) == done.image
    assert (done.image.registry, done.image.digest) == ("", Digest.of(SIF))
    assert (store.root / "images/tool/adopted").resolve() == done.path.resolve()
    assert list(store.leftovers()) == []
    assert verify(store, Silent()) == (1, ())


def test_an_adopted_file_gets_the_name_and_tag_that_were_asked_for(store: Store, source: Path) -> None:
    take(store, source, "other:2.0")
    assert store.find(Reference.parse("other:2.0")).sif_digest == Digest.of(SIF)


def open_to_others(source: Path) -> None:
    source.chmod(0o664)


def second_name(source: Path) -> None:
    os.link(source, source.with_name("another name"))


def of_somebody_else(source: Path) -> None:
    os.chown(source, files.NOBODY, files.NOBODY)


@pytest.mark.parametrize(
    "prepare",
    [
        open_to_others,
        second_name,
        pytest.param(of_somebody_else, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives away")),
    ],
)
def test_a_file_that_others_can_write_is_copied_and_left_as_it_is(store: Store, source: Path, prepare: object) -> None:
    assert callable(prepare)
    prepare(source)
    before = source.stat()
    done = take(store, source)
    assert done.way in ("copy", "reflink")
    after, mine = source.stat(), done.path.stat()
    assert (after.st_mode, after.st_nlink, after.st_uid) == (before.st_mode, before.st_nlink, before.st_uid)
    assert (mine.st_nlink, mine.st_uid) == (1, os.geteuid())
    source.write_bytes(b"changed later")
    assert verify(store, Silent()) == (1, ())


def test_a_file_that_a_process_has_open_for_writing_is_copied(store: Store, source: Path) -> None:
    with source.open("r+b") as writer:
        done = take(store, source)
        writer.write(b"changed later")
    assert done.way in ("copy", "reflink")
    assert verify(store, Silent()) == (1, ())


def test_where_nothing_can_be_shared_the_file_is_copied(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt_module, "_link", lambda *_: False)
    monkeypatch.setattr(adopt_module, "_clone", lambda *_: False)
    assert take(store, source).way == "copy"
    assert verify(store, Silent()) == (1, ())


def test_what_is_here_already_is_only_named(store: Store, source: Path) -> None:
    put(store, SIF, "pulled", "1-1")
    assert take(store, source).way == "here"
    assert stat.S_IMODE(source.stat().st_mode) == 0o644
    assert source.stat().st_nlink == 1
    assert {image.recipe for _, image in store.images()} == {"pulled", "tool"}


def test_a_tag_of_a_registry_s_image_is_not_taken_over(store: Store, source: Path) -> None:
    put(store, b"another", "tool", "1-1")
    with pytest.raises(UsageError, match=r"it was pulled from ghcr\.io/org/images"):
        take(store, source, "tool:1-1")
    assert store.find(Reference.parse("tool:1-1")).sif_digest == Digest.of(b"another")
    assert not store.blob(Digest.of(SIF)).exists()


def test_what_is_known_of_an_image_from_a_registry_is_kept(store: Store, source: Path) -> None:
    put(store, SIF, "tool", "1-1")
    assert take(store, source, "tool:1-1").image.registry == "ghcr.io/org/images"
    assert store.find(Reference.parse("tool:1-1")).registry == "ghcr.io/org/images"


def test_a_file_that_changes_meanwhile_is_refused(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest_of_open = files.digest_of_open

    def hash_then_change(descriptor: int, advance: Advance) -> Digest:
        found = digest_of_open(descriptor, advance)
        Path(f"/proc/self/fd/{descriptor}").write_bytes(b"#" * len(SIF))
        return found

    monkeypatch.setattr(files, "digest_of_open", hash_then_change)
    with pytest.raises(IntegrityFailure, match="the file changed while it was adopted"):
        take(store, source)
    assert list(store.blobs()) == []
    assert list(store.leftovers()) == []


def test_what_is_no_sif_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text.sif").write_text("no image")
    (tmp_path / "empty.sif").write_text("")
    (tmp_path / "cut.sif").write_bytes(SIF[:-1])
    os.mkfifo(tmp_path / "pipe.sif")
    for name in ("text.sif", "empty.sif", "cut.sif", "pipe.sif", "."):
        with pytest.raises((UsageError, IsADirectoryError)):
            take(store, tmp_path / name)
    with pytest.raises(NotFound, match="there is no file"):
        take(store, tmp_path / "missing.sif")
    assert list(store.blobs()) == []

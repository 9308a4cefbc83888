from __future__ import annotations

import threading
from pathlib import Path

import pytest

from factory.errors import FactoryError
from factory.oci.digest import Descriptor, Digest
from factory.pull.stage import Staged, stage
from factory.registry.protocol import SIF_LAYER
from factory.store.refs import StoredImage
from factory.store.store import Store
from tests.unit.parts import QUIET, Recorded
from tests.unit.store.stored import ingest

CONTENT = b"the image " * 200_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def image(store: Store) -> StoredImage:
    sif = Descriptor.of(SIF_LAYER, CONTENT)
    ingest(store, sif, lambda offset: [CONTENT[offset:]], QUIET)
    stored = StoredImage("tool", "1.0-1", "oci:/x", Digest.of(b"m"), sif.digest, sif.size, "2024-05-01T12:00:00Z")
    store.record(stored, ["latest"])
    return stored


def test_an_image_is_copied_once(tmp_path: Path, store: Store, image: StoredImage) -> None:
    local = tmp_path / "local"
    seen = Recorded()
    first = stage(image, store=store, local=local, progress=seen)
    assert seen.steps == [("stage tool", len(CONTENT), len(CONTENT))]
    assert first.copied == len(CONTENT)
    assert first.path.read_bytes() == CONTENT
    assert first.path.is_relative_to(local)
    assert first.path.stat().st_mode & 0o777 == 0o444
    assert stage(image, store=store, local=local, progress=QUIET) == Staged(first.path, 0)


def test_many_processes_make_one_copy(tmp_path: Path, store: Store, image: StoredImage) -> None:
    done: list[Staged] = []
    threads = [
        threading.Thread(target=lambda: done.append(stage(image, store=store, local=tmp_path / "l", progress=QUIET)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(staged.copied for staged in done) == [0] * 5 + [len(CONTENT)]
    assert {staged.path.read_bytes() for staged in done} == {CONTENT}


def test_an_interrupted_copy_is_resumed(tmp_path: Path, store: Store, image: StoredImage) -> None:
    local = Store(tmp_path / "local")
    wanted = Descriptor(SIF_LAYER, image.sif_digest, image.size)

    def broken(offset: int) -> list[bytes]:
        assert offset == 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(local, wanted, broken, QUIET)
    (partial,) = local.leftovers()
    partial.write_bytes(CONTENT[:1_000_000])
    assert stage(image, store=store, local=local.root, progress=QUIET).copied == len(CONTENT) - 1_000_000


def spoil(path: Path, content: bytes | None) -> None:
    path.chmod(0o644)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        *(
            (
                content,
                "the file of tool:1.0-1 is gone from the store",
                "get the same image back with: singfactory pull oci:/x/tool@",
            )
            for content in (None, b"", CONTENT[:-1], CONTENT + b"x")
        ),
        (CONTENT[::-1], "the stored image ", "singfactory store verify --repair"),
    ],
)
def test_a_damaged_stored_image_is_never_staged_and_the_error_says_what_to_do(
    store: Store, image: StoredImage, content: bytes | None, what: str, fix: str
) -> None:
    source = store.blob(image.sif_digest)
    spoil(source, content)
    with pytest.raises(FactoryError) as caught:
        stage(image, store=store, local=store.root.with_name("local"), progress=QUIET)
    assert caught.value.what.startswith(what)
    assert caught.value.fix.startswith(fix)
    assert not Store(store.root.with_name("local")).blob(image.sif_digest).exists()
    # Once the store is repaired, staging works again.
    spoil_free(source)
    assert stage(image, store=store, local=store.root.with_name("local"), progress=QUIET).path.read_bytes() == CONTENT


def spoil_free(path: Path) -> None:
    path.write_bytes(CONTENT)


def test_a_staged_copy_of_the_wrong_size_is_made_again(tmp_path: Path, store: Store, image: StoredImage) -> None:
    path = stage(image, store=store, local=tmp_path / "local", progress=QUIET).path
    spoil(path, b"short")
    assert stage(image, store=store, local=tmp_path / "local", progress=QUIET).path.read_bytes() == CONTENT

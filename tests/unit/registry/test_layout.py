from __future__ import annotations

import json
import os
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NoRoom, NotFound, NotPermitted, UsageError
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import RegistryAddress
from factory.registry.layout import LayoutRegistry
from factory.registry.layout_index import REF_NAME, LayoutIndex
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest, RawManifest, artifact

CONTENT = b"sif " * 1000
LAYER = Descriptor.of(SIF_LAYER, CONTENT)
CONFIG = Descriptor.of(SIF_CONFIG, EMPTY_JSON)
RAW = Manifest(CONFIG, (LAYER,)).raw()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def registry(folder: Path) -> LayoutRegistry:
    return LayoutRegistry(RegistryAddress.parse(f"oci:{folder}"))


def push(registry: LayoutRegistry, tag: str = "") -> None:
    for content, descriptor in ((EMPTY_JSON, CONFIG), (CONTENT, LAYER)):
        registry.push_blob("tool", content, descriptor, Silent())
    registry.push_manifest("tool", RAW, tag)


def blob_path(folder: Path) -> Path:
    return folder / "tool" / "blobs" / "sha256" / LAYER.digest.hex


def test_the_folder_holds_a_layout_and_nothing_else(registry: LayoutRegistry, folder: Path) -> None:
    push(registry, "1.0-1")
    assert {path.name for path in (folder / "tool").iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert json.loads((folder / "tool" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.name for path in (folder / "tool" / "blobs" / "sha256").iterdir()} == {
        CONFIG.digest.hex,
        LAYER.digest.hex,
        RAW.descriptor.digest.hex,
    }
    assert list((folder / ".partial").iterdir()) == []
    assert list((folder / ".locks").iterdir()) == []


def test_a_damaged_blob_is_found_by_reading_and_healed_by_pushing(registry: LayoutRegistry, folder: Path) -> None:
    push(registry)
    blob_path(folder).write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(IntegrityFailure):
        list(registry.blob("tool", LAYER))
    registry.push_blob("tool", CONTENT, LAYER, Silent())
    assert b"".join(registry.blob("tool", LAYER)) == CONTENT
    blob_path(folder).write_bytes(CONTENT[:-1])
    with pytest.raises(IntegrityFailure, match="damaged"):
        list(registry.blob("tool", LAYER))
    assert not registry.has_blob("tool", LAYER)


def test_a_damaged_manifest_is_found(registry: LayoutRegistry, folder: Path) -> None:
    push(registry, "latest")
    path = folder / "tool" / "blobs" / "sha256" / RAW.descriptor.digest.hex
    path.write_bytes(RAW.content.replace(b"schemaVersion", b"schemaversion"))
    with pytest.raises(IntegrityFailure, match="damaged"):
        registry.manifest("tool", "latest")


def test_a_link_in_the_place_of_a_blob_is_refused(registry: LayoutRegistry, folder: Path, tmp_path: Path) -> None:
    push(registry)
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    blob_path(folder).unlink()
    blob_path(folder).symlink_to(tmp_path / "elsewhere")
    for attempt in (
        lambda: list(registry.blob("tool", LAYER)),
        lambda: registry.has_blob("tool", LAYER),
        lambda: registry.push_blob("tool", CONTENT, LAYER, Silent()),
    ):
        with pytest.raises(IntegrityFailure, match="symbolic link"):
            attempt()
    blob_path(folder).unlink()
    os.mkfifo(blob_path(folder))
    with pytest.raises(IntegrityFailure):
        list(registry.blob("tool", LAYER))


def test_a_source_that_is_not_what_it_should_be_leaves_nothing(registry: LayoutRegistry, folder: Path) -> None:
    for content in (b"short", CONTENT + b"more", b"x" + CONTENT[1:]):
        with pytest.raises(IntegrityFailure):
            registry.push_blob("tool", content, LAYER, Silent())
    with pytest.raises(NotFound, match="file to push"):
        registry.push_blob("tool", folder / "absent.sif", LAYER, Silent())
    assert not blob_path(folder).exists()
    assert list((folder / ".partial").iterdir()) == []


def test_a_full_disk_is_reported_before_anything_is_written(
    registry: LayoutRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.io.files.free_space", lambda _: 1000)
    with pytest.raises(NoRoom) as caught:
        registry.push_blob("tool", CONTENT, LAYER, Silent())
    assert "needed, 1 kB free" in caught.value.why
    assert not blob_path(folder).exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_reported(registry: LayoutRegistry, folder: Path) -> None:
    push(registry)
    folder.chmod(0o500)
    (folder / "tool").chmod(0)
    with pytest.raises(AccessDenied):
        registry.tags("tool")
    with pytest.raises(NotPermitted):
        registry.push_blob("other", CONTENT, LAYER, Silent())
    (folder / "tool").chmod(0o700)
    folder.chmod(0o700)


def test_what_a_dead_process_left_is_removed_after_a_day(registry: LayoutRegistry, folder: Path) -> None:
    (folder / ".partial").mkdir(parents=True)
    old, fresh = folder / ".partial" / "old", folder / ".partial" / "fresh"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    push(registry)
    assert not old.exists()
    assert fresh.exists()


def test_concurrent_pushes_of_the_same_blob_do_not_interfere(folder: Path) -> None:
    together, failed = Barrier(6), []

    def body() -> None:
        registry = LayoutRegistry(RegistryAddress.parse(f"oci:{folder}"))
        for number in range(20):
            together.wait(30)
            try:
                registry.push_blob(f"tool-{number}", CONTENT, LAYER, Silent())
            except (FactoryError, OSError) as error:
                failed.append(error)

    threads = [Thread(target=body) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all((folder / f"tool-{number}/blobs/sha256/{LAYER.digest.hex}").exists() for number in range(20))


@pytest.mark.slow
def test_of_hundreds_of_referrers_each_is_read_once(registry: LayoutRegistry, folder: Path) -> None:
    push(registry, "1.0-1")
    entries = []
    for number in range(400):
        manifest, blobs = artifact("application/x.sbom", str(number).encode(), RAW.descriptor)
        if number < 3:
            for content, descriptor in blobs:
                registry.push_blob("tool", content, descriptor, Silent())
            entries.append(registry.push_referrer("tool", manifest))
        else:  # as another tool would have written it, without this test paying for 1200 fsyncs
            raw = manifest.raw()
            (folder / "tool" / "blobs" / "sha256" / raw.descriptor.digest.hex).write_bytes(raw.content)
            entries.append(raw.descriptor)
    index = folder / "tool" / "index.json"
    listed = LayoutIndex.parse(index.read_bytes(), "")
    for entry in entries:
        listed = listed.with_manifest(entry)
    index.write_bytes(listed.content())
    read: list[Digest] = []

    class Counting(LayoutRegistry):
        def _read_manifest(self, repository: str, digest: Digest, said: str) -> RawManifest:
            read.append(digest)
            return super()._read_manifest(repository, digest, said)

    fresh = Counting(RegistryAddress.parse(f"oci:{folder}"))
    for _ in range(2):
        assert len(fresh.referrers("tool", RAW.descriptor.digest, "application/x.sbom")) == 400
    assert len(read) == len(set(read)) == len(listed.descriptors())
    assert list(registry.referrers("tool", RAW.descriptor.digest, "application/other")) == []


def test_a_repository_is_one_folder_below(registry: LayoutRegistry) -> None:
    for name in ("a/b", "..", "../x", ".locks", ".partial", "/etc"):
        with pytest.raises(UsageError):
            registry.tags(name)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"manifests": 5}', '{"manifests": [5]}', "[" * 100_000])
def test_a_broken_index_is_named(registry: LayoutRegistry, folder: Path, content: str) -> None:
    (folder / "tool").mkdir(parents=True)
    (folder / "tool" / "index.json").write_text(content)
    with pytest.raises(IntegrityFailure, match=r"index\.json is broken"):
        registry.tags("tool")


def test_what_other_tools_wrote_stays_in_the_index() -> None:
    strange = {"mediaType": "a/b", "digest": f"sha256:{'1' * 64}", "size": 1, "platform": {"os": "x"}, "new": [1]}
    named = {**strange, "annotations": {REF_NAME: "docker.io/a:b", "other": "kept"}}
    content = json.dumps({"schemaVersion": 2, "annotations": {"a": "b"}, "manifests": [strange, named]}).encode()
    index = LayoutIndex.parse(content, "")
    assert index.tags() == {}
    changed = json.loads(index.with_manifest(RAW.descriptor, "latest").content())
    assert changed["annotations"] == {"a": "b"}
    assert changed["manifests"][:2] == [strange, named]


def test_a_moved_tag_leaves_its_manifest_listed_once() -> None:
    first, second = Descriptor.of("a/b", b"1"), Descriptor.of("a/b", b"2")
    index = LayoutIndex().with_manifest(first, "latest").with_manifest(first, "1.0")
    index = index.with_manifest(second, "latest")
    assert [(entry["digest"], entry.get("annotations", {}).get(REF_NAME)) for entry in index.entries] == [
        (str(first.digest), "1.0"),
        (str(second.digest), "latest"),
    ]
    index = index.with_manifest(second, "1.0")
    assert index.find(first.digest) is not None
    assert len(index.with_manifest(first, "old").entries) == 3
    assert index.with_manifest(first) is index

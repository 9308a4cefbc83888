from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure, NotFound, PlaceUnusable, RegistryFailure
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference
from factory.publish.publish import Origin, publish
from factory.pull.pull import Pulled, copy_out, pull
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest, Registry
from factory.store.store import Store
from factory.store.verify import verify
from tests.unit.parts import (
    QUIET,
    Call,
    Heard,
    Recorded,
    Watched,
    candidate,
    folder_registry,
    push_foreign,
    report_of,
    sif_of,
    write_recipe,
)

CONTENT = sif_of(b"the image " * 300_000)  # three blocks
OTHER = sif_of(b"other one " * 300_000)


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def release(tmp_path: Path, registry: LayoutRegistry) -> Release:
    return put(tmp_path, registry)


def put(tmp_path: Path, registry: LayoutRegistry, content: bytes = CONTENT, more: str = "") -> Release:
    recipe = write_recipe(tmp_path / "recipes", more=more or '[run]\ngpu = "nvidia"\nbinds = ["/data"]')
    made = candidate(tmp_path / "candidates", recipe, content)
    return publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def get(registry: Registry, store: Store, reference: str = "tool", progress: Silent = QUIET) -> Pulled:
    return pull(Reference.parse(reference), registry=registry, store=store, arch="amd64", progress=progress)


def listening(registry: Registry, calls: list[str]) -> Watched:
    return Watched(registry, lambda call: calls.append(call.method) if call.begins else None)


def test_a_pulled_image_is_in_the_store_verified_and_read_only(
    registry: LayoutRegistry, store: Store, release: Release
) -> None:
    done = get(registry, store)
    assert done.path.read_bytes() == CONTENT
    assert done.path == store.blob(release.sif.digest)
    assert done.path.stat().st_mode & 0o777 == 0o444
    assert (done.transferred, done.reused) == (len(CONTENT), 0)
    for tag in ("latest", "1.0-1"):
        assert (store.root / "images/tool" / tag).resolve() == done.path.resolve()


def test_the_store_remembers_what_was_pulled_and_how_it_is_run(
    registry: LayoutRegistry, store: Store, release: Release
) -> None:
    done = get(registry, store)
    image = store.find(Reference.parse("tool"))
    assert image == done.image
    assert (image.tag, image.digest, image.sif_digest) == ("1.0-1", release.digest, release.sif.digest)
    assert (image.gpu, image.binds, image.registry) == ("nvidia", ("/data",), registry.describe())
    assert store.find(Reference.parse(f"tool@{release.digest}")) == image


def test_the_json_of_a_pull_has_what_the_format_names(registry: LayoutRegistry, store: Store, release: Release) -> None:
    value = json.loads(json.dumps(get(registry, store).to_json()))
    assert value.pop("seconds") >= 0
    assert value == {
        "name": "tool",
        "tag": "1.0-1",
        "digest": str(release.digest),
        "sif_digest": str(release.sif.digest),
        "path": str(store.blob(release.sif.digest)),
        "size": len(CONTENT),
        "transferred": len(CONTENT),
        "reused": 0,
        "registry": registry.describe(),
        "cuda": "",
        "driver": "",
        "gpu_tests": [],
    }


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("reference", ["tool", "tool:1.0", "tool:1.0-1"])
def test_a_stored_image_costs_one_request_and_no_bytes(registry: LayoutRegistry, store: Store, reference: str) -> None:
    get(registry, store)
    calls: list[str] = []
    done = get(listening(registry, calls), store, reference)
    assert calls == ["manifest"]
    assert (done.transferred, done.reused) == (0, len(CONTENT))


def test_a_tag_that_moves_in_the_middle_of_a_pull_does_not_mix_images(
    tmp_path: Path, registry: LayoutRegistry, store: Store, release: Release
) -> None:
    newer: list[Release] = []

    def move(call: Call) -> None:
        if (call.when, call.method) == ("before", "blob") and not newer:
            newer.append(put(tmp_path, registry, OTHER))

    done = get(Watched(registry, move), store)
    assert done.path.read_bytes() == CONTENT
    assert (done.image.digest, done.image.tag) == (release.digest, "1.0-1")
    assert get(registry, store).image.digest == newer[0].digest
    assert (store.root / "images/tool/latest").read_bytes() == OTHER
    assert (store.root / "images/tool/1.0-1").read_bytes() == CONTENT


def test_a_locked_digest_never_follows_a_tag(
    tmp_path: Path, registry: LayoutRegistry, store: Store, release: Release
) -> None:
    put(tmp_path, registry, b"something newer")
    assert get(registry, store, f"tool@{release.digest}").path.read_bytes() == CONTENT


def test_an_interrupted_pull_resumes_where_it_stopped(registry: LayoutRegistry, store: Store, release: Release) -> None:
    whole = b"".join(registry.blob("tool", release.sif))

    class Broken(Watched):
        def blob(self, *asked: Any, **options: Any) -> Iterator[bytes]:
            yield whole[: 1024 * 1024]
            raise RegistryFailure(f"the connection was lost: {asked} {options}")

    with pytest.raises(RegistryFailure, match="lost"):
        get(Broken(registry, lambda _: None), store)
    assert not store.blob(release.sif.digest).exists()
    done = get(registry, store)
    assert done.path.read_bytes() == CONTENT
    assert (done.transferred, done.reused) == (len(CONTENT) - 1024 * 1024, 1024 * 1024)


def test_wrong_bytes_are_fetched_a_second_time_and_then_refused(
    registry: LayoutRegistry, store: Store, release: Release
) -> None:
    asked: list[object] = []

    class Wrong(Watched):
        def blob(self, *wanted: Any, **options: Any) -> Iterator[bytes]:
            asked.append((*wanted, options)[2])
            yield CONTENT[::-1]

    with pytest.raises(IntegrityFailure, match="content does not match its digest"):
        get(Wrong(registry, lambda _: None), store)
    assert asked == [0, 0]
    assert not store.blob(release.sif.digest).exists()
    assert get(registry, store).path.read_bytes() == CONTENT


def test_a_deprecated_image_is_pulled_with_a_notice(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    put(tmp_path, registry, more='[lifecycle]\nstatus = "deprecated"\nnote = "use tool2"')
    heard = Heard()
    get(registry, store, progress=heard)
    assert heard.notes == ["tool is deprecated: use tool2"]


def test_a_withdrawn_image_is_pulled_by_digest_only(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    release = put(tmp_path, registry, more='[lifecycle]\nstatus = "withdrawn"\nnote = "wrong results"')
    with pytest.raises(NotFound, match="tool is withdrawn"):
        get(registry, store)
    assert not store.root.exists()
    heard = Heard()
    assert get(registry, store, f"tool@{release.digest}", heard).path.read_bytes() == CONTENT
    assert heard.notes == ["tool is withdrawn: wrong results"]


def test_a_foreign_image_can_be_pulled(registry: LayoutRegistry, store: Store) -> None:
    digest = push_foreign(registry, "tool", "v1", sif_of(b"foreign"))
    assert get(registry, store, "tool:v1").image.tag == "v1"
    by_digest = get(registry, store, f"tool@{digest}")
    assert by_digest.path.read_bytes() == sif_of(b"foreign")
    assert by_digest.image.tag == f"sha256-{digest.hex}"
    assert (by_digest.image.gpu, by_digest.image.binds) == ("none", ())


TAR = Descriptor.of("application/vnd.oci.image.layer.v1.tar+gzip", b"tar")
SIF = Descriptor.of(SIF_LAYER, b"sif")


@pytest.mark.parametrize("layers", [(), (SIF, SIF), (TAR,), (SIF, TAR)])
def test_a_manifest_of_another_kind_is_refused_before_any_byte_is_fetched(
    registry: LayoutRegistry, store: Store, layers: Sequence[Descriptor]
) -> None:
    config = Descriptor.of(SIF_CONFIG, EMPTY_JSON)
    for content, descriptor in ((b"sif", SIF), (b"tar", TAR), (EMPTY_JSON, config)):
        registry.push_blob("tool", content, descriptor, QUIET)
    registry.push_manifest("tool", Manifest(config, tuple(layers)).raw(), "latest")
    calls: list[str] = []
    with pytest.raises(IntegrityFailure, match="this is not a SIF image"):
        get(listening(registry, calls), store)
    assert "blob" not in calls
    assert not store.root.exists()


# --- damage to a stored image


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_a_stored_image_of_the_wrong_size_is_fetched_again(
    registry: LayoutRegistry, store: Store, content: bytes
) -> None:
    damage(get(registry, store).path, content)
    done = get(registry, store)
    assert done.path.read_bytes() == CONTENT
    assert done.path.stat().st_mode & 0o777 == 0o444


@pytest.mark.usefixtures("release")
def test_a_stored_image_with_other_bytes_is_never_copied_out(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    done = get(registry, store)
    damage(done.path, CONTENT[::-1])
    with pytest.raises(IntegrityFailure) as caught:
        copy_out(done, tmp_path / "out/copy.sif", QUIET)
    assert caught.value.fix == "singfactory store verify --repair"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("release")
def test_the_advice_of_that_error_repairs_the_store(registry: LayoutRegistry, store: Store) -> None:
    path = get(registry, store).path
    damage(path, CONTENT[::-1])
    verify(store, QUIET)
    done = get(registry, store)
    assert (done.path, done.transferred) == (path, len(CONTENT))
    assert path.read_bytes() == CONTENT


# --- pull -o


def test_a_copy_goes_to_a_path_or_into_a_folder(
    tmp_path: Path, registry: LayoutRegistry, store: Store, release: Release
) -> None:
    done = get(registry, store)
    (tmp_path / "folder").mkdir()
    seen = Recorded()
    named, inside = copy_out(done, tmp_path / "new/my.sif", seen), copy_out(done, tmp_path / "folder", QUIET)
    assert seen.steps == [("copy to my.sif", 2 * len(CONTENT), 2 * len(CONTENT))]  # written and read
    assert (named, inside) == (tmp_path / "new/my.sif", tmp_path / "folder/tool-1.0-1.sif")
    assert named.read_bytes() == inside.read_bytes() == CONTENT
    assert Digest.of(named.read_bytes()) == release.sif.digest
    assert named.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["my.sif"]


@pytest.mark.usefixtures("release")
def test_a_copy_replaces_an_older_file_in_one_step_or_not_at_all(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    done = get(registry, store)
    target = tmp_path / "copy.sif"
    target.write_bytes(b"older")
    reader = target.open("rb")
    with pytest.raises(PlaceUnusable, match="it is another file"):
        copy_out(done, target, QUIET)
    assert target.read_bytes() == b"older"
    copy_out(done, target, QUIET, force=True)
    with reader:
        assert reader.read() == b"older"  # another file, not the same one overwritten
    assert target.read_bytes() == CONTENT
    damage(done.path, CONTENT[::-1])
    with pytest.raises(IntegrityFailure):
        copy_out(done, target, QUIET, force=True)
    assert target.read_bytes() == CONTENT


@pytest.mark.usefixtures("release")
def test_a_link_at_the_destination_is_replaced_and_not_followed(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    precious, link = tmp_path / "precious", tmp_path / "copy.sif"
    precious.write_bytes(b"mine")
    link.symlink_to(precious)
    done = get(registry, store)
    with pytest.raises(PlaceUnusable, match="it is a symbolic link"):
        copy_out(done, link, QUIET)
    assert link.is_symlink()
    copy_out(done, link, QUIET, force=True)
    assert precious.read_bytes() == b"mine"
    assert not link.is_symlink()


@pytest.mark.usefixtures("release")
def test_a_file_in_place_of_the_destination_folder_is_a_clear_error(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceUnusable):
        copy_out(get(registry, store), tmp_path / "file/copy.sif", QUIET)

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from factory.build import base_layout
from factory.build.base_layout import BasePlace, fetched, put_into
from factory.errors import BuildFailed, IntegrityFailure, NotFound
from factory.io.progress import Silent
from factory.recipes.definition import parser as definition_parser
from factory.recipes.definition.definition import Definition
from factory.registry.protocol import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST
from tests.unit.images import CONFIG, LAYER, Images

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def place(images: Images, tmp_path: Path) -> BasePlace:
    return BasePlace(lambda _: images.registry(), tmp_path / "bases")


def definition(tmp_path: Path, text: str) -> Definition:
    (tmp_path / "image.def").write_text(text)
    return definition_parser.read(tmp_path, "image.def")


def manifest_in(layout: Path) -> dict[str, object]:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    found: dict[str, object] = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    return found


def test_each_docker_stage_becomes_a_folder_and_the_others_stay(
    images: Images, place: BasePlace, tmp_path: Path
) -> None:
    images.put_image("12", b"layer")
    text = (
        "Bootstrap: docker\nRegistry: example.org\nNamespace: a\nFrom: b:12\n\nBootstrap: localimage\nFrom: base.sif\n"
    )
    rewritten, (base,) = fetched(definition(tmp_path, text), "amd64", place, Silent())
    first, second = rewritten.stages
    assert {header.key: header.value for header in first.headers} == {
        "Bootstrap": "oci",
        "From": ".base/example.org/a/b=12",
    }
    assert second.value("From") == "base.sif"
    put_into(tmp_path, (base,), Path)
    assert (tmp_path / ".base/example.org/a/b=12/oci-layout").is_file()
    blobs = {path.read_bytes() for path in (base.layout / "blobs/sha256").iterdir()}
    assert {b"layer", b"{}"} < blobs


def test_docker_media_types_are_converted_to_oci(images: Images, place: BasePlace, tmp_path: Path) -> None:
    images.put_image("latest", b"layer", kind=DOCKER_MANIFEST, config=DOCKER_CONFIG, layer=DOCKER_LAYER)
    _, (base,) = fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x\n"), "amd64", place, Silent())
    found = manifest_in(base.layout)
    assert found["mediaType"] == MANIFEST
    assert [found["config"]["mediaType"], found["layers"][0]["mediaType"]] == [CONFIG, LAYER]  # type: ignore[index]


@pytest.mark.parametrize("kind", [INDEX, DOCKER_LIST])
def test_only_the_architecture_being_built_is_fetched(
    images: Images, place: BasePlace, tmp_path: Path, kind: str
) -> None:
    entries = [
        images.put_image(f"of-{arch}", arch.encode()).to_json() | {"platform": {"os": "linux", "architecture": arch}}
        for arch in ("arm64", "amd64")
    ]
    images.put("1", {"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    wanted = definition(tmp_path, "Bootstrap: docker\nFrom: x:1\n")
    _, (base,) = fetched(wanted, "amd64", place, Silent())
    assert b"amd64" in {path.read_bytes() for path in (base.layout / "blobs/sha256").iterdir()}
    with pytest.raises(BuildFailed, match=r"docker.io/library/x:1 does not exist for ppc64le") as caught:
        fetched(wanted, "ppc64le", place, Silent())
    assert caught.value.why == "it is available for: amd64, arm64"


def test_a_digest_is_fetched_by_itself_and_named_without_a_colon(
    images: Images, place: BasePlace, tmp_path: Path
) -> None:
    digest = images.put_image("1", b"layer").digest
    wanted = definition(tmp_path, f"Bootstrap: docker\nFrom: localhost:5000/x@{digest}\n")
    _, (base,) = fetched(wanted, "amd64", place, Silent())
    assert base.name == f".base/localhost_5000/x=sha256-{digest.hex}"


def test_a_cached_base_is_not_fetched_again_unless_damaged(images: Images, place: BasePlace, tmp_path: Path) -> None:
    images.put_image("1", b"one", b"two")
    images.put_image("2", b"one", b"three")
    wanted = definition(tmp_path, "Bootstrap: docker\nFrom: x:1\n")
    _, (base,) = fetched(wanted, "amd64", place, Silent())
    assert len(images.fetched) == 3
    fetched(wanted, "amd64", place, Silent())
    assert len(images.fetched) == 3
    fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x:2\n"), "amd64", place, Silent())
    assert len(images.fetched) == 4  # shared blobs are copied
    damaged = next(path for path in (base.layout / "blobs/sha256").iterdir() if path.read_bytes() == b"two")
    damaged.write_bytes(b"TWO")
    fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x:1\n"), "amd64", place, Silent())
    assert (damaged.read_bytes(), len(images.fetched)) == (b"two", 5)


def test_a_base_unused_for_a_month_is_removed(images: Images, place: BasePlace, tmp_path: Path) -> None:
    images.put_image("1", b"one")
    images.put_image("2", b"two")
    _, (old,) = fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x:1\n"), "amd64", place, Silent())
    before = time.time() - 31 * 24 * 3600
    os.utime(old.layout, (before, before))
    fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x:2\n"), "amd64", place, Silent())
    assert not old.layout.exists()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}, "its media type is"),
        ({"layers": None}, "its media type is"),
        ({"layers": [{"mediaType": "x/y", "digest": f"sha256:{'0' * 64}", "size": 1}]}, "it contains"),
        ({"layers": [{"mediaType": LAYER, "digest": f"sha256:{'0' * 64}", "size": 1}] * 600}, "it has 600 layers"),
    ],
)
def test_an_unusable_base_is_refused_before_anything_is_fetched(
    images: Images, place: BasePlace, tmp_path: Path, changed: dict[str, object], why: str
) -> None:
    config = images.put_blob(CONFIG, b"{}")
    images.put("latest", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []} | changed)
    with pytest.raises(IntegrityFailure, match="cannot be used as a base image") as caught:
        fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x\n"), "amd64", place, Silent())
    assert caught.value.why.startswith(why)
    assert images.fetched == []


def test_a_missing_base_is_an_error_that_names_it(place: BasePlace, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"the base image docker.io/library/x:latest does not exist"):
        fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x\n"), "amd64", place, Silent())


def test_a_recipes_link_in_place_of_the_base_folder_is_not_followed(
    images: Images, place: BasePlace, tmp_path: Path
) -> None:
    images.put_image("latest", b"layer")
    _, bases = fetched(definition(tmp_path, "Bootstrap: docker\nFrom: x\n"), "amd64", place, Silent())
    elsewhere, context = tmp_path / "elsewhere", tmp_path / "context"
    for folder in (elsewhere, context):
        folder.mkdir()
    (context / base_layout.FOLDER).symlink_to(elsewhere)
    put_into(context, bases, Path)
    assert list(elsewhere.iterdir()) == []
    assert (context / bases[0].name / "index.json").is_file()


def test_a_copy_without_the_index_is_found_by_the_architecture_s_own_digest(
    images: Images, place: BasePlace, tmp_path: Path
) -> None:
    index, own = "sha256:" + "1" * 64, str(images.put_image("1", b"layer").digest)
    wanted = definition(tmp_path, f"Bootstrap: docker\nFrom: x@{index}\n")
    with pytest.raises(NotFound):
        fetched(wanted, "amd64", place, Silent())
    _, (base,) = fetched(wanted, "amd64", place, Silent(), {index: own})
    assert b"layer" in {path.read_bytes() for path in (base.layout / "blobs/sha256").iterdir()}


def test_a_lock_that_contradicts_the_index_is_refused(images: Images, place: BasePlace, tmp_path: Path) -> None:
    entry = images.put_image("of", b"1").to_json() | {"platform": {"os": "linux", "architecture": "amd64"}}
    index = str(images.put("1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).digest)
    wanted = definition(tmp_path, f"Bootstrap: docker\nFrom: x@{index}\n")
    with pytest.raises(IntegrityFailure, match=r"base\.lock contradicts docker\.io/library/x@sha256:") as caught:
        fetched(wanted, "amd64", place, Silent(), {index: "sha256:" + "2" * 64})
    assert caught.value.fix == "run singfactory update"
    assert images.fetched == []

"""The image of a base that is another recipe: local or pulled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import FactoryError, NotFound
from factory.make.builds import published_image
from factory.oci.names import Reference
from factory.publish.publish import Origin, publish
from factory.pull.pull import pull
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import Registry
from factory.store.store import Store
from tests.unit.parts import QUIET, Watched, candidate, folder_registry, report_of, sif_of, write_recipe

ONE, TWO = sif_of(b"one"), sif_of(b"two")


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


def put(tmp_path: Path, registry: LayoutRegistry, content: bytes, more: str = "") -> Release:
    recipe = write_recipe(tmp_path / "recipes", "base", more=more)
    made = candidate(tmp_path / "candidates", recipe, content)
    return publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def image_of(tmp_path: Path, registry: Registry, release: Release) -> Path:
    return published_image(
        release, made=tmp_path / "candidates", registry=registry, store=Store(tmp_path / "store"), progress=QUIET
    )


def test_a_base_that_was_built_here_is_taken_from_here(tmp_path: Path, registry: LayoutRegistry) -> None:
    release = put(tmp_path, registry, ONE)
    asked: list[str] = []
    path = image_of(tmp_path, Watched(registry, lambda call: asked.append(call.method)), release)
    assert (path, asked) == (tmp_path / "candidates/base-amd64/image.sif", [])


def test_a_base_that_was_built_elsewhere_is_pulled(tmp_path: Path, registry: LayoutRegistry) -> None:
    release = put(tmp_path, registry, ONE)
    (tmp_path / "candidates/base-amd64/candidate.json").unlink()
    assert image_of(tmp_path, registry, release) == Store(tmp_path / "store").blob(release.sif.digest)


@pytest.mark.parametrize("content", [b"two", b"longer than one"])
def test_a_base_whose_local_bytes_changed_is_not_used(tmp_path: Path, registry: LayoutRegistry, content: bytes) -> None:
    release = put(tmp_path, registry, ONE)
    (tmp_path / "candidates/base-amd64/image.sif").write_bytes(content)
    assert image_of(tmp_path, registry, release).read_bytes() == ONE


def test_the_planned_base_is_used_even_if_tags_have_moved(tmp_path: Path, registry: LayoutRegistry) -> None:
    decided = put(tmp_path, registry, ONE)
    newer = put(tmp_path, registry, TWO)
    assert image_of(tmp_path, registry, decided).read_bytes() == ONE
    assert image_of(tmp_path, registry, newer).read_bytes() == TWO


def test_a_withdrawn_base_can_still_be_used(tmp_path: Path, registry: LayoutRegistry) -> None:
    release = put(tmp_path, registry, ONE, '[lifecycle]\nstatus = "withdrawn"')
    (tmp_path / "candidates/base-amd64/image.sif").unlink()
    with pytest.raises(NotFound):
        pull(Reference("base"), registry=registry, store=Store(tmp_path / "s"), arch="amd64", progress=QUIET)
    assert image_of(tmp_path, registry, release).read_bytes() == ONE


def test_a_base_that_is_missing_from_the_registry_is_an_error(tmp_path: Path, registry: LayoutRegistry) -> None:
    release = put(tmp_path, registry, ONE)
    gone = replace(release, digest=release.sif.digest, sif=replace(release.sif, digest=release.digest))
    with pytest.raises(FactoryError):
        image_of(tmp_path, registry, gone)

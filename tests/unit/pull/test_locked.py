from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, NotFound
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.publish.publish import Origin, publish
from factory.pull.locked import pull_locked
from factory.pull.pull import Pulled, pull
from factory.records.lockfile import LockedImage, parse, render
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import Registry
from factory.store.store import Store
from tests.unit.parts import QUIET, Heard, candidate, folder_registry, push_foreign, report_of, sif_of, write_recipe

DATE = "2024-05-01T10:00:00Z"


FIRST, SECOND = sif_of(b"first"), sif_of(b"second")


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def release(tmp_path: Path, registry: Registry, content: bytes, more: str = "") -> None:
    recipe = write_recipe(tmp_path / "recipes", more=more)
    made = candidate(tmp_path / "candidates", recipe, content)
    publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def lock(tmp_path: Path, registry: Registry, reference: str = "tool") -> LockedImage:
    """Pull into a temporary store and return the lock entry."""
    throw_away = Store(tmp_path / "another store")
    done = pull(Reference.parse(reference), registry=registry, store=throw_away, arch="amd64", progress=QUIET)
    (image,) = parse(render([LockedImage.of(done.image, DATE)]).encode(), "x")
    return image


def get(image: LockedImage, registry: Registry, store: Store, heard: Heard | None = None) -> Pulled:
    return pull_locked(image, open_registry=lambda: registry, store=store, arch="amd64", progress=heard or Heard())


def offline() -> Registry:
    raise AssertionError("no registry is needed")


def test_the_locked_image_is_fetched_although_the_tags_have_moved(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    release(tmp_path, registry, FIRST)
    image = lock(tmp_path, registry)
    release(tmp_path, registry, SECOND)
    heard = Heard()
    done = get(image, registry, store, heard)
    assert done.path.read_bytes() == FIRST
    assert heard.notes == [], "the build's own tag does not move"
    assert [tag for tag, _ in store.images()] == ["1.0-1"], "latest is not moved to an old image"


def test_a_locked_tag_that_names_another_image_now_gives_a_notice(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    push_foreign(registry, "tool", "stable", FIRST)
    image = lock(tmp_path, registry, "tool:stable")
    push_foreign(registry, "tool", "stable", SECOND)
    heard = Heard()
    assert get(image, registry, store, heard).path.read_bytes() == FIRST
    assert heard.notes == [f"tool:stable names another image now; fetching the locked {image.digest}"]


@pytest.mark.parametrize("status", ["deprecated", "withdrawn"])
def test_the_locked_image_is_fetched_although_its_recipe_is_withdrawn(
    tmp_path: Path, registry: LayoutRegistry, store: Store, status: str
) -> None:
    release(tmp_path, registry, FIRST)
    image = lock(tmp_path, registry)
    release(tmp_path, registry, SECOND, f'[lifecycle]\nstatus = "{status}"\nnote = "a bug"')
    heard = Heard()
    assert get(image, registry, store, heard).path.read_bytes() == FIRST
    assert heard.notes == [f"tool is {status}: a bug"]


def test_an_image_whose_sif_is_not_the_locked_one_is_refused_before_a_byte_of_it_is_fetched(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    release(tmp_path, registry, FIRST)
    image = replace(lock(tmp_path, registry), sif_digest=Digest.of(b"another"))
    with pytest.raises(IntegrityFailure, match="is not the locked image") as caught:
        get(image, registry, store)
    assert caught.value.exit_code == 5
    assert not store.root.exists()
    pull(Reference.parse("tool"), registry=registry, store=store, arch="amd64", progress=QUIET)
    with pytest.raises(IntegrityFailure, match="the store has"):
        get(image, registry, store)


def test_a_stored_locked_image_needs_no_registry(tmp_path: Path, registry: LayoutRegistry, store: Store) -> None:
    release(tmp_path, registry, FIRST)
    image = lock(tmp_path, registry)
    get(image, registry, store)
    done = pull_locked(image, open_registry=offline, store=store, arch="amd64", progress=QUIET)
    assert (done.transferred, done.reused) == (0, len(FIRST))


def test_a_locked_image_that_was_deleted_from_the_store_is_fetched_again(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    release(tmp_path, registry, FIRST)
    image = lock(tmp_path, registry)
    get(image, registry, store).path.unlink()
    assert get(image, registry, store).transferred == len(FIRST)


def test_a_locked_image_that_the_registry_has_lost_is_not_replaced_by_another(
    tmp_path: Path, registry: LayoutRegistry, store: Store
) -> None:
    release(tmp_path, registry, FIRST)
    image = replace(lock(tmp_path, registry), digest=Digest.of(b"lost"))
    with pytest.raises(NotFound):
        get(image, registry, store)

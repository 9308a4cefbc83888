from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import AccessDenied, FactoryError, NotFound, RecipeError, RegistryFailure, UsageError
from factory.plan.bases import digest_now, look_up, update
from factory.recipes.model import Recipe
from factory.recipes.pins import read_pin
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import Registry
from tests.unit.parts import (
    BASE_DIGEST,
    Call,
    Watched,
    folder_registry,
    push_foreign,
    write_recipe,
)


@pytest.fixture
def hub(tmp_path: Path) -> LayoutRegistry:
    """A registry of base images. Folder registries have no nested names, so these names have no /."""
    return folder_registry(tmp_path / "hub")


def unpinned(tmp_path: Path, name: str, base: str = "docker://hub.example/debian:12") -> Recipe:
    recipe = write_recipe(tmp_path / "recipes", name, base=base)
    (recipe.folder / "base.lock").unlink(missing_ok=True)
    return recipe


def refuse(host: str) -> Registry:
    raise AssertionError(f"{host} was asked")


def opener(registry: Registry) -> Callable[[str], Registry]:
    return lambda _: registry


def test_a_pinned_base_is_not_asked_for(tmp_path: Path) -> None:
    assert look_up([write_recipe(tmp_path)], refuse) == {"tool": BASE_DIGEST}


def test_recipes_without_a_docker_base_have_no_digest(tmp_path: Path) -> None:
    none = write_recipe(tmp_path, "none", base="", definition="Bootstrap: scratch\n")
    assert look_up([none, write_recipe(tmp_path, "top", base="recipe://none")], refuse) == {}


def test_each_recipe_has_the_digest_of_its_own_pin(tmp_path: Path, hub: LayoutRegistry) -> None:
    digest = push_foreign(hub, "debian", "12")
    base = "docker://hub.example/debian:12"
    one, two = write_recipe(tmp_path, "one", base=base), write_recipe(tmp_path, "two", base=base)
    lock = two.folder / "base.lock"
    lock.write_text(lock.read_text().replace("b" * 64, "c" * 64))
    three = unpinned(tmp_path, "three")
    expected = {"one": BASE_DIGEST, "two": "sha256:" + "c" * 64, "three": str(digest)}
    for order in ([one, two, three], [three, two, one]):
        assert look_up(order, opener(hub)) == expected


def test_a_base_that_several_recipes_share_is_asked_for_once(tmp_path: Path, hub: LayoutRegistry) -> None:
    digest = str(push_foreign(hub, "debian", "12"))
    asked: list[str] = []
    watched = Watched(hub, lambda call: asked.append(call.about) if call.begins else None)
    recipes = [unpinned(tmp_path, f"r{number}") for number in range(5)]
    assert look_up(recipes, opener(watched)) == {recipe.name: digest for recipe in recipes}
    assert asked == ["12"]


def test_the_host_of_the_base_is_the_one_that_is_asked(tmp_path: Path, hub: LayoutRegistry) -> None:
    push_foreign(hub, "debian", "12")
    hosts: list[str] = []

    def open_host(host: str) -> Registry:
        hosts.append(host)
        return hub

    look_up([unpinned(tmp_path, "one")], open_host)
    assert hosts == ["hub.example"]


def test_a_broken_pin_is_the_trouble_of_its_own_recipe(tmp_path: Path) -> None:
    good, bad = write_recipe(tmp_path, "good"), write_recipe(tmp_path, "bad")
    (bad.folder / "base.lock").write_text("nonsense")
    found = look_up([bad, good], refuse)
    assert isinstance(found["bad"], RecipeError)
    assert found["good"] == BASE_DIGEST


def test_a_missing_base_is_reported_by_name(tmp_path: Path, hub: LayoutRegistry) -> None:
    error = look_up([unpinned(tmp_path, "one")], opener(hub))["one"]
    assert isinstance(error, NotFound)
    assert error.lines() == (
        "the base image hub.example/debian:12 does not exist",
        "hub.example has no debian:12",
        "check build.base in recipe.toml",
    )


@pytest.mark.parametrize("error", [RegistryFailure("no answer", fix="wait"), AccessDenied("no", fix="log in")])
def test_a_failing_registry_is_reported_with_the_base(tmp_path: Path, hub: LayoutRegistry, error: FactoryError) -> None:
    def fail(call: Call) -> None:
        assert call.method == "head"
        raise error

    found = look_up([unpinned(tmp_path, "one")], opener(Watched(hub, fail)))["one"]
    assert isinstance(found, type(error))
    assert (found.what, found.why) == ("the base image hub.example/debian:12 could not be looked up", str(error))
    assert (found.fix, found.retryable) == (error.fix, error.retryable)


def test_a_base_by_digest_is_looked_up_by_digest(hub: LayoutRegistry) -> None:
    digest = push_foreign(hub, "debian", "12")
    assert digest_now(f"docker://hub.example/debian@{digest}", opener(hub)) == str(digest)


def test_an_invalid_base_name_is_refused(hub: LayoutRegistry) -> None:
    with pytest.raises(UsageError):
        digest_now("docker://Not A Name", opener(hub))


# --- update


def test_update_pins_moves_and_leaves(tmp_path: Path, hub: LayoutRegistry) -> None:
    recipe = unpinned(tmp_path, "one")
    first, lock = str(push_foreign(hub, "debian", "12", b"1")), recipe.folder / "base.lock"
    done = update(recipe, opener(hub))
    assert done is not None
    assert (done.before, done.pin.digest, read_pin(recipe)) == ("", first, done.pin)
    written = lock.read_bytes()
    done = update(recipe, opener(hub))
    assert done is not None
    assert (done.before, done.pin.digest, lock.read_bytes()) == (first, first, written)
    second = str(push_foreign(hub, "debian", "12", b"2"))
    done = update(recipe, opener(hub))
    assert done is not None
    assert (done.before, done.pin.digest, read_pin(recipe)) == (first, second, done.pin)


def test_update_leaves_the_pin_alone_when_the_registry_fails(tmp_path: Path, hub: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path, base="docker://hub.example/debian:12")
    before = (recipe.folder / "base.lock").read_bytes()
    with pytest.raises(NotFound):
        update(recipe, opener(hub))
    assert (recipe.folder / "base.lock").read_bytes() == before


def test_update_has_nothing_to_do_without_a_docker_base(tmp_path: Path) -> None:
    assert update(write_recipe(tmp_path, base="recipe://other"), refuse) is None


def test_a_pin_of_another_base_is_replaced(tmp_path: Path, hub: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path, base="docker://hub.example/debian:12")
    lock = recipe.folder / "base.lock"
    lock.write_text(lock.read_text().replace("debian:12", "debian:11"))
    digest = str(push_foreign(hub, "debian", "12"))
    done = update(recipe, opener(hub))
    assert done is not None
    assert (done.before, done.pin.digest) == ("", digest)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import AccessDenied, FactoryError, NotFound, RecipeError, RegistryFailure, UsageError
from factory.plan.bases import digest_now, look_up, update
from factory.recipes.bases import images_of
from factory.recipes.model import Recipe
from factory.recipes.pins import read_pin, read_pins
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import INDEX, MANIFEST, Registry
from tests.unit.images import CONFIG, Images
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
    assert look_up([write_recipe(tmp_path)], refuse).bases == {"tool": BASE_DIGEST}


def test_recipes_without_a_docker_base_have_no_digest(tmp_path: Path) -> None:
    none = write_recipe(tmp_path, "none", base="", definition="Bootstrap: scratch\n")
    assert look_up([none, write_recipe(tmp_path, "top", base="recipe://none")], refuse).bases == {}


def test_each_recipe_has_the_digest_of_its_own_pin(tmp_path: Path, hub: LayoutRegistry) -> None:
    digest = push_foreign(hub, "debian", "12")
    base = "docker://hub.example/debian:12"
    one, two = write_recipe(tmp_path, "one", base=base), write_recipe(tmp_path, "two", base=base)
    lock = two.folder / "base.lock"
    lock.write_text(lock.read_text().replace("b" * 64, "c" * 64))
    three = unpinned(tmp_path, "three")
    expected = {"one": BASE_DIGEST, "two": "sha256:" + "c" * 64, "three": str(digest)}
    for order in ([one, two, three], [three, two, one]):
        assert look_up(order, opener(hub)).bases == expected


def test_a_base_that_several_recipes_share_is_asked_for_once(tmp_path: Path, hub: LayoutRegistry) -> None:
    digest = str(push_foreign(hub, "debian", "12"))
    asked: list[str] = []
    watched = Watched(hub, lambda call: asked.append(call.about) if call.begins else None)
    recipes = [unpinned(tmp_path, f"r{number}") for number in range(5)]
    assert look_up(recipes, opener(watched)).bases == {recipe.name: digest for recipe in recipes}
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
    found = look_up([bad, good], refuse).bases
    assert isinstance(found["bad"], RecipeError)
    assert found["good"] == BASE_DIGEST


def test_a_missing_base_is_reported_by_name(tmp_path: Path, hub: LayoutRegistry) -> None:
    error = look_up([unpinned(tmp_path, "one")], opener(hub)).bases["one"]
    assert isinstance(error, NotFound)
    assert error.lines() == (
        f"{tmp_path}/recipes/one/recipe.toml:10: the base image hub.example/debian:12 does not exist",
        "hub.example has no debian:12",
        "correct the name, or the tag, in recipe.toml",
    )


@pytest.mark.parametrize("error", [RegistryFailure("no answer", fix="wait"), AccessDenied("no", fix="log in")])
def test_a_failing_registry_is_reported_with_the_base(tmp_path: Path, hub: LayoutRegistry, error: FactoryError) -> None:
    def fail(call: Call) -> None:
        assert call.method == "head"
        raise error

    found = look_up([unpinned(tmp_path, "one")], opener(Watched(hub, fail))).bases["one"]
    assert isinstance(found, type(error))
    place = f"{tmp_path}/recipes/one/recipe.toml:10"
    what = f"{place}: the base image hub.example/debian:12 could not be looked up"
    assert (found.what, found.why, found.retryable) == (what, str(error), error.retryable)
    mirror = 'check the network, or name a mirror: "hub.example" under [mirrors] in factory.toml'
    assert found.fix == (error.fix if isinstance(error, AccessDenied) else mirror)


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
    (done,) = update(recipe, opener(hub))
    assert (done.before, done.pin.digest, read_pin(recipe), done.moved) == ("", first, done.pin, True)
    written = lock.read_bytes()
    (done,) = update(recipe, opener(hub))
    assert (done.before, done.pin.digest, lock.read_bytes(), done.moved) == (first, first, written, False)
    second = str(push_foreign(hub, "debian", "12", b"2"))
    (done,) = update(recipe, opener(hub))
    assert (done.before, done.pin.digest, read_pin(recipe)) == (first, second, done.pin)


def test_update_leaves_the_pin_alone_when_the_registry_fails(tmp_path: Path, hub: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path, base="docker://hub.example/debian:12")
    before = (recipe.folder / "base.lock").read_bytes()
    with pytest.raises(NotFound):
        update(recipe, opener(hub))
    assert (recipe.folder / "base.lock").read_bytes() == before


def test_update_has_nothing_to_do_without_a_docker_base(tmp_path: Path) -> None:
    assert update(write_recipe(tmp_path, base="recipe://other"), refuse) == ()


def test_a_pin_of_another_base_is_replaced(tmp_path: Path, hub: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path, base="docker://hub.example/debian:12")
    lock = recipe.folder / "base.lock"
    lock.write_text(lock.read_text().replace("debian:12", "debian:11"))
    digest = str(push_foreign(hub, "debian", "12"))
    (done,) = update(recipe, opener(hub))
    assert (done.before, done.pin.digest) == ("", digest)


# --- several images, several architectures

TWO_STAGES = "Bootstrap: docker\nFrom: hub.example/golang:1.22\nStage: build\n\nBootstrap: docker\nFrom: {{ base }}\n"


def put_index(images: Images, tag: str, **layers: bytes) -> str:
    """An index with an image of one layer for each architecture."""
    entries = [
        images.put_image(f"{tag}-{arch}", layer).to_json() | {"platform": {"os": "linux", "architecture": arch}}
        for arch, layer in layers.items()
    ]
    return str(images.put(tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).digest)


def member(images: Images, tag: str, arch: str) -> str:
    return str(images.documents[f"{tag}-{arch}"].descriptor.digest)


@pytest.fixture
def images() -> Images:
    return Images()


def two_stages(tmp_path: Path, arch: str = '["amd64"]') -> Recipe:
    base = "docker://hub.example/debian:12"
    recipe = write_recipe(tmp_path, base=base, definition=TWO_STAGES, build=f"arch = {arch}")
    (recipe.folder / "base.lock").unlink()
    return recipe


def test_every_image_is_pinned_for_each_architecture(tmp_path: Path, images: Images) -> None:
    recipe = two_stages(tmp_path)
    debian = put_index(images, "12", amd64=b"1", arm64=b"2", s390x=b"3")
    golang = put_index(images, "1.22", amd64=b"4")
    done = update(recipe, opener(images.registry()))
    assert [(one.pin.base, one.pin.digest) for one in done] == [
        ("docker://hub.example/debian:12", debian),
        ("docker://hub.example/golang:1.22", golang),
    ]
    assert read_pins(recipe).pins == tuple(one.pin for one in done)
    assert done[0].pin.platforms == {arch: member(images, "12", arch) for arch in ("amd64", "arm64")}
    found = look_up([recipe], refuse)
    assert found.bases == {"tool": debian}
    assert found.images == {"tool": {"docker://hub.example/golang:1.22": golang}}


def test_an_index_that_moved_only_for_other_architectures_has_not_moved(tmp_path: Path, images: Images) -> None:
    recipe = two_stages(tmp_path)
    debian = put_index(images, "12", amd64=b"1", arm64=b"2")
    put_index(images, "1.22", amd64=b"4")
    update(recipe, opener(images.registry()))
    written = (recipe.folder / "base.lock").read_bytes()
    put_index(images, "12", amd64=b"1", arm64=b"new")
    done = update(recipe, opener(images.registry()))
    assert [one.moved for one in done] == [False, False]
    assert done[0].pin.digest == debian
    assert (recipe.folder / "base.lock").read_bytes() == written
    put_index(images, "12", amd64=b"new", arm64=b"new")
    assert [one.moved for one in update(recipe, opener(images.registry()))] == [True, False]


def test_an_image_without_the_recipe_s_architecture_is_refused_with_file_and_line(
    tmp_path: Path, images: Images
) -> None:
    recipe = two_stages(tmp_path, '["amd64", "arm64"]')
    put_index(images, "12", amd64=b"1", arm64=b"2")
    put_index(images, "1.22", amd64=b"4")
    with pytest.raises(RecipeError) as caught:
        update(recipe, opener(images.registry()))
    what = "the base image hub.example/golang:1.22 does not exist for arm64"
    assert caught.value.what == f"{recipe.folder}/image.def:2: {what}"
    assert caught.value.why == "it is available for: amd64"
    assert not (recipe.folder / "base.lock").exists()


def test_a_single_image_has_the_architecture_of_its_configuration(tmp_path: Path, images: Images) -> None:
    recipe = unpinned(tmp_path, "one")
    config = images.put_blob(CONFIG, b'{"architecture": "arm64", "os": "linux"}')
    images.put("12", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
    with pytest.raises(RecipeError, match="does not exist for amd64"):
        update(recipe, opener(images.registry()))


def test_the_older_form_of_base_lock_is_rewritten_with_the_same_digest(tmp_path: Path, images: Images) -> None:
    recipe = write_recipe(tmp_path, base="docker://hub.example/debian:12")
    digest = put_index(images, "12", amd64=b"1")
    lock = recipe.folder / "base.lock"
    lock.write_text(lock.read_text().replace(BASE_DIGEST, digest))
    (done,) = update(recipe, opener(images.registry()))
    assert not done.moved
    assert done.pin.resolved == "2024-01-01T00:00:00Z"
    assert "[image.platforms]" in lock.read_text()


def test_pins_that_the_recipe_no_longer_uses_are_removed(tmp_path: Path, images: Images) -> None:
    recipe = two_stages(tmp_path)
    put_index(images, "12", amd64=b"1")
    put_index(images, "1.22", amd64=b"4")
    update(recipe, opener(images.registry()))
    (recipe.folder / "image.def").write_text("Bootstrap: docker\nFrom: {{ base }}\n")
    assert len(update(recipe, opener(images.registry()))) == 1
    assert len(read_pins(recipe).pins) == 1


def test_one_missing_image_of_several_is_the_trouble_of_its_recipe(tmp_path: Path, images: Images) -> None:
    put_index(images, "12", amd64=b"1")
    found = look_up([two_stages(tmp_path)], opener(images.registry()))
    assert isinstance(found.bases["tool"], NotFound)
    assert "hub.example/golang:1.22" in found.bases["tool"].what
    assert found.images == {}


def test_the_images_of_a_dockerfile_are_those_that_its_target_needs(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, base="", definition="Bootstrap: scratch\n")
    (recipe.folder / "Dockerfile").write_text(
        "ARG TAG=12\nFROM golang:1.22 AS build\nFROM debian:$TAG AS run\nCOPY --from=build /x /x\n"
        "COPY --from=busybox:1 /bin /bin\nFROM alpine:3 AS other\n"
    )
    spec = replace(recipe.build, dockerfile="Dockerfile", target="run", args={"TAG": "13"})
    found = images_of(replace(recipe, build=spec))
    assert [(image.name, image.place.line) for image in found] == [
        ("docker://golang:1.22", 2),
        ("docker://debian:13", 3),
        ("docker://busybox:1", 5),
    ]

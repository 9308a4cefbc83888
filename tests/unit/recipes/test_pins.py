from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, RecipeError
from factory.recipes.definition.arguments import argument_values, base_address
from factory.recipes.load import load_recipe
from factory.recipes.model import BasePin, Recipe
from factory.recipes.pins import is_stale, read_pin, write_pin

MakeRecipe = Callable[..., Path]

DIGEST = "sha256:" + "a" * 64
TOML = '[recipe]\nname = "one"\nversion = "1"\n[build]\nbase = "{base}"\n'


def _recipe(make: MakeRecipe, base: str = "docker://debian:12") -> Recipe:
    return load_recipe(make("one", toml=TOML.format(base=base)))


def test_a_pin_is_written_and_read(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    assert read_pin(recipe) is None
    assert not is_stale(recipe)
    pin = BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")
    path = write_pin(recipe, pin)
    assert path.read_text() == (
        "# Written by: singfactory update. A pull request moves the base; do not edit by hand.\n"
        f'base = "docker://debian:12"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n'
    )
    assert read_pin(recipe) == pin
    assert not is_stale(recipe)


def test_a_pin_of_another_base_does_not_count_and_is_stale(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    write_pin(recipe, BasePin("docker://debian:11", DIGEST, "2024-05-01T12:00:00+02:00"))
    assert read_pin(recipe) is None
    assert is_stale(recipe)


def test_a_bad_digest_is_not_written(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    with pytest.raises(IntegrityFailure):
        write_pin(recipe, BasePin("docker://debian:12", "sha256:abc", "2024-05-01T12:00:00Z"))
    assert not (recipe.folder / "base.lock").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = ", "base.lock:1: not TOML: "),
        (f'base = "x"\ndigest = "md5:{"a" * 32}"\nresolved = "2024-05-01T12:00:00Z"\n', "base.lock:2: not a digest: "),
        (f'base = "x"\ndigest = "{DIGEST}"\nresolved = "yesterday"\n', "base.lock:3: resolved is not a time"),
        (f'digest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n', "base.lock: base is missing"),
        (
            f'base = "x"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\nz = 1\n',
            "base.lock:4: unknown key 'z'",
        ),
    ],
)
def test_a_broken_pin_is_an_error_with_a_way_out(make: MakeRecipe, text: str, message: str) -> None:
    recipe = _recipe(make)
    (recipe.folder / "base.lock").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_pin(recipe)
    assert caught.value.what.startswith(f"{recipe.folder}/{message}")
    assert caught.value.fix == "remove the file and run: singfactory update"


def test_a_pin_that_is_a_link_out_of_the_folder_is_refused(make: MakeRecipe, tmp_path: Path) -> None:
    recipe = _recipe(make)
    (recipe.folder / "base.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match=r"base\.lock is a link to an absolute path"):
        read_pin(recipe)


def test_what_base_stands_for_never_has_a_tag_and_a_digest(make: MakeRecipe) -> None:
    recipe = _recipe(make, f"docker://ghcr.io/org/image:1@{DIGEST}")
    assert base_address(recipe) == f"ghcr.io/org/image@{DIGEST}"


def test_what_base_stands_for_is_pinned_when_it_can_be(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    assert base_address(recipe) == "docker.io/library/debian:12"
    pin = BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")
    assert base_address(recipe, pin.digest) == f"docker.io/library/debian@{DIGEST}"


def test_what_base_stands_for_may_be_a_recipe_or_nothing(make: MakeRecipe) -> None:
    recipe = _recipe(make, "recipe://python-3.11")
    assert base_address(recipe) == "python-3.11"
    values = argument_values(recipe, arch="arm64", base="base.sif", debian_mirror="http://mirror")
    assert values == {
        "name": "one",
        "version": "1",
        "arch": "arm64",
        "base": "base.sif",
        "debian_mirror": "http://mirror",
    }
    assert "base" not in argument_values(recipe, arch="amd64", base="")

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, RecipeError
from factory.recipes.definition.arguments import argument_values, base_address
from factory.recipes.load import load_recipe
from factory.recipes.model import BasePin, Recipe
from factory.recipes.pins import Pins, read_pin, read_pins, write_pins

MakeRecipe = Callable[..., Path]

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OLD = 'base = "docker://x"\ndigest = "{}"\nresolved = "2024-05-01T12:00:00Z"\n'
ENTRY = f'[[image]]\nname = "docker://x"\nresolved = "2024-05-01T12:00:00Z"\ndigest = "{DIGEST}"\n'
TOML = '[recipe]\nname = "one"\nversion = "1"\n[build]\nbase = "{base}"\n'


def _recipe(make: MakeRecipe, base: str = "docker://debian:12") -> Recipe:
    return load_recipe(make("one", toml=TOML.format(base=base)))


def test_pins_are_written_and_read(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    assert read_pins(recipe) == Pins()
    pins = [
        BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z", {"arm64": OTHER, "amd64": DIGEST}),
        BasePin("docker://ghcr.io/org/tool:1", OTHER, "2024-05-02T12:00:00Z"),
    ]
    path = write_pins(recipe, pins)
    assert path.read_text() == (
        "# Written by: singfactory update. A pull request moves the bases; do not edit by hand.\n"
        f'\n[[image]]\nname = "docker://debian:12"\nresolved = "2024-05-01T12:00:00Z"\ndigest = "{DIGEST}"\n'
        f'[image.platforms]\namd64 = "{DIGEST}"\narm64 = "{OTHER}"\n'
        f'\n[[image]]\nname = "docker://ghcr.io/org/tool:1"\nresolved = "2024-05-02T12:00:00Z"\ndigest = "{OTHER}"\n'
    )
    assert read_pins(recipe) == Pins(tuple(pins), (3, 11))
    assert read_pin(recipe) == pins[0]
    assert read_pins(recipe).known("arm64") == {DIGEST: OTHER}


def test_the_older_form_is_read(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    lines = f'# by hand\nbase = "docker://debian:12"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n'
    (recipe.folder / "base.lock").write_text(lines)
    assert read_pin(recipe) == BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")
    assert read_pins(recipe).known("amd64") == {}


def test_an_image_is_found_under_any_spelling_of_its_name(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    write_pins(recipe, [BasePin("docker://docker.io/library/debian:12", DIGEST, "2024-05-01T12:00:00Z")])
    assert read_pin(recipe) is not None
    write_pins(recipe, [BasePin("docker://debian:11", DIGEST, "2024-05-01T12:00:00+02:00")])
    assert read_pin(recipe) is None


def test_without_pins_there_is_no_file(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    write_pins(recipe, [BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")])
    write_pins(recipe, [])
    assert not (recipe.folder / "base.lock").exists()


def test_a_bad_digest_is_not_written(make: MakeRecipe) -> None:
    recipe = _recipe(make)
    for pin in (
        BasePin("docker://debian:12", "sha256:abc", "2024-05-01T12:00:00Z"),
        BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z", {"amd64": "sha256:abc"}),
    ):
        with pytest.raises(IntegrityFailure):
            write_pins(recipe, [pin])
    assert not (recipe.folder / "base.lock").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = ", "base.lock:1: not TOML: "),
        (
            f'base = "docker://x"\ndigest = "md5:{"a" * 32}"\nresolved = "2024-05-01T12:00:00Z"\n',
            "base.lock:2: not a digest: ",
        ),
        (f'base = "docker://x"\ndigest = "{DIGEST}"\nresolved = "yesterday"\n', "base.lock:3: resolved is not a time"),
        (f'digest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n', "base.lock: base is missing"),
        (
            f'base = "docker://x"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\nz = 1\n',
            "base.lock:4: unknown key 'z'",
        ),
        (
            f'base = "x"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n',
            "base.lock:1: 'x' does not begin with",
        ),
        (ENTRY + "z = 1\n", "base.lock:5: unknown key 'z'"),
        (ENTRY + "\n" + ENTRY, "base.lock:7: docker://x is pinned twice"),
        (ENTRY.replace("://x", "://X Y"), "base.lock:2: not an image name"),
        (ENTRY.replace("name", "base"), "base.lock:2: unknown key 'base'"),
        (ENTRY + '[image.platforms]\namd64 = "sha256:1"\n', "base.lock:5: not a digest"),
        (ENTRY + "[image.platforms]\namd64 = 1\n", "base.lock:6: amd64 is a number"),
        (ENTRY + f'[image.platforms]\n"a b" = "{DIGEST}"\n', "base.lock:6: 'a b' is not an architecture"),
        ("image = 3\n", "base.lock:1: image is a number"),
        ("# nothing\n", "base.lock: nothing is pinned"),
        (
            f'base = "docker://x"\ndigest = "{DIGEST}"\nresolved = "2024-05-01T12:00:00Z"\n{ENTRY}',
            "base.lock:4: unknown",
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

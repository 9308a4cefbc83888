from __future__ import annotations

from pathlib import Path

import pytest

from factory.errors import UsageError
from factory.recipes import scaffold as module
from factory.recipes.definition.parser import read
from factory.recipes.lint.lint import lint_all
from factory.recipes.load import load_recipe
from factory.recipes.scaffold import scaffold


@pytest.mark.parametrize(
    ("image", "base", "version"),
    [
        ("debian:12", "docker://debian:12", "12"),
        ("docker://python:3.11.4-slim", "docker://python:3.11.4-slim", "3.11.4"),
        ("ghcr.io/org/tool:v1.2", "docker://ghcr.io/org/tool:v1.2", "1.2"),
        ("debian:bookworm", "docker://debian:bookworm", "1.0"),
        ("debian", "docker://debian", "1.0"),
        (f"debian@sha256:{'1' * 64}", f"docker://debian@sha256:{'1' * 64}", "1.0"),
    ],
)
def test_a_new_recipe_lints_clean_but_for_its_pin(tmp_path: Path, image: str, base: str, version: str) -> None:
    folder = scaffold(tmp_path / "recipes", "new", image)
    recipe = load_recipe(folder)
    assert (recipe.build.base, recipe.version) == (base, version)
    problems = lint_all(tmp_path / "recipes")
    assert all("not pinned" in problem.message and problem.warning for problem in problems)
    assert len(problems) == ("sha256" not in image)


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("debian:12", {"PYTHONNOUSERSITE", "PYTHONPATH"}),
        ("recipe://python-3.11", {"PYTHONNOUSERSITE", "PYTHONPATH"}),
        ("rocker/r-ver:4.4.1", {"R_LIBS_USER", "R_LIBS"}),
        ("julia:1.10", {"JULIA_DEPOT_PATH"}),
        ("perl:5.38", {"PERL5LIB"}),
        ("quay.io/jupyter/r-notebook:1", {"PYTHONNOUSERSITE", "PYTHONPATH", "R_LIBS_USER", "R_LIBS"}),
    ],
)
def test_a_new_recipe_keeps_users_packages_out(tmp_path: Path, image: str, names: set[str]) -> None:
    scaffold(tmp_path, "python-3.11", f"debian@sha256:{'1' * 64}")
    folder = scaffold(tmp_path, "new", image)
    (environment,) = read(folder, "image.def").stages[0].named("environment")
    exported = [
        word.partition("=")[0] for line in environment.body.splitlines() for word in line.split() if "=" in word
    ]
    assert set(exported) - {"LC_ALL"} == names
    assert all("not pinned" in problem.message for problem in lint_all(tmp_path))


def test_a_new_recipe_can_be_based_on_another(tmp_path: Path) -> None:
    scaffold(tmp_path, "one", f"debian@sha256:{'1' * 64}")
    scaffold(tmp_path, "two", "recipe://one")
    assert lint_all(tmp_path) == ()


def test_an_existing_recipe_is_left_alone(tmp_path: Path) -> None:
    folder = scaffold(tmp_path, "one", "debian:12")
    before = (folder / "recipe.toml").read_text()
    with pytest.raises(UsageError, match="the recipe one exists already") as caught:
        scaffold(tmp_path, "one", "debian:13")
    assert caught.value.fix
    assert (folder / "recipe.toml").read_text() == before


@pytest.mark.parametrize(("name", "image"), [("../x", "debian"), ("One", "debian"), ("one", "-x"), ("one", "a b")])
def test_bad_names_leave_nothing_behind(tmp_path: Path, name: str, image: str) -> None:
    with pytest.raises(UsageError):
        scaffold(tmp_path, name, image)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "atomic_write", fail)
    with pytest.raises(KeyboardInterrupt):
        scaffold(tmp_path, "one", "debian:12")
    assert list(tmp_path.iterdir()) == []


def test_a_maintainers_name_cannot_break_the_file(tmp_path: Path) -> None:
    folder = scaffold(tmp_path, "one", "debian:12", maintainer='a "b" \\ c')
    assert load_recipe(folder).maintainers == ('a "b" \\ c',)

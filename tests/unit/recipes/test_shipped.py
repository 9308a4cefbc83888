"""The recipes that ship with the factory: lint clean, pinned, tested, and within what a runner has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from factory.plan.waves import LARGE
from factory.recipes.lint.lint import lint_all
from factory.recipes.load import load_recipe
from factory.recipes.model import Recipe

ROOT = Path(__file__).resolve().parents[3]
RECIPES = [load_recipe(folder) for folder in sorted((ROOT / "recipes").iterdir())]
UNPINNED = re.compile(r"the (?:base docker://|image )[a-z/]+:[\w.-]+ is not pinned to a digest")
WORKING = {"true", "false", ":"}  # programs that show nothing
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def of_docker_hub(recipe: Recipe) -> bool:
    return bool(recipe.build.dockerfile) or recipe.build.base.startswith("docker://")


def locked(recipe: Recipe) -> Iterator[tuple[Path, Path]]:
    """Files of requirements, and what each was made from. A project's come from its lock."""
    for path in sorted(recipe.folder.glob("files/*.in")):
        yield path.with_suffix(".txt"), path


def test_no_recipe_has_a_problem_but_a_base_that_could_not_be_asked_for_its_digest() -> None:
    problems = [problem for problem in lint_all(ROOT / "recipes") if not UNPINNED.search(problem.message)]
    assert problems == []


@each_recipe
def test_a_recipe_says_what_it_is(recipe: Recipe) -> None:
    about = recipe.summary, recipe.license, recipe.homepage, recipe.maintainers
    assert all(about), about
    assert recipe.homepage.startswith("https://")


@each_recipe
def test_a_recipe_has_tests_that_do_more_than_import(recipe: Recipe) -> None:
    working = [test for test in recipe.tests if not test.gpu and not re.search(r"version|import ", test.run)]
    assert working, [test.run for test in recipe.tests]
    assert all(shlex.split(test.run)[0] not in WORKING for test in recipe.tests)
    assert all(test.stdout or test.stdout_regex or test.exit or "test -d" in test.run for test in recipe.tests)


@each_recipe
def test_a_recipe_for_gpus_has_tests_for_them_and_another_has_none(recipe: Recipe) -> None:
    assert any(test.gpu for test in recipe.tests) == (recipe.run.gpu != "none")


@each_recipe
def test_scripts_of_tests_are_there_and_each_is_used(recipe: Recipe) -> None:
    named = {word for test in recipe.tests for word in shlex.split(test.run) if word.startswith("tests/")}
    folder = recipe.folder / "tests"
    there = {f"tests/{path.name}" for path in folder.glob("*.*") if path.suffix in (".py", ".sh", ".R")}
    assert named == there


@each_recipe
def test_a_build_fits_a_job_on_github(recipe: Recipe) -> None:
    assert recipe.build.timeout <= timedelta(hours=2)
    assert recipe.build.disk <= 2 * LARGE + 2_000_000_000  # what jobs free on GitHub's machines: docs/github.md
    assert recipe.build.arch == ("amd64",)  # what was built and tested


@each_recipe
def test_pip_installs_by_hash(recipe: Recipe) -> None:
    if recipe.project.source:
        return
    installs = re.findall(r"pip install (?:[^\n]|\\\n)*", recipe.definition_path.read_text())
    assert all("--no-deps" in line for line in installs if not of_docker_hub(recipe))
    files = list(locked(recipe))
    assert len([line for line in installs if "--require-hashes" in line]) == len(files)
    for requirements, wanted in files:
        text = requirements.read_text()
        pins = re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)), requirements
        names = re.findall(r"^([a-z0-9][a-z0-9-]*)", wanted.read_text(), re.MULTILINE)
        assert set(names) <= set(pins), wanted


@each_recipe
def test_files_of_requirements_say_how_they_were_made_and_name_no_index(recipe: Recipe) -> None:
    for requirements, _ in locked(recipe):
        text = requirements.read_text()
        assert re.search(r"^#    uv pip compile .* --generate-hashes .* requirements\.in ", text, re.MULTILINE)
        assert not re.search(r"index-url|find-links|https?:|file:", text.replace("--no-emit-index-url", "")), (
            requirements
        )


@each_recipe
def test_the_version_of_a_recipe_is_that_of_its_package(recipe: Recipe) -> None:
    package = {"pytorch-cuda": "torch", "jax-cpu": "jax", "jax-cuda": "jax"}.get(recipe.name, recipe.name)
    for requirements, _ in locked(recipe):
        match = re.search(rf"^{package}==(\S+)", requirements.read_text(), re.MULTILINE)
        assert match is None or match[1] == recipe.version


def test_the_readme_lists_every_recipe_with_what_it_is_built_from() -> None:
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| .* \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {name: base for name, base in rows if (ROOT / "recipes" / name).is_dir()}
    assert sorted(listed) == [recipe.name for recipe in RECIPES]
    for recipe in RECIPES:
        base = recipe.build.base.removeprefix("recipe://")
        assert of_docker_hub(recipe) or not base or f"`{base}`" in listed[recipe.name]

"""Packages of the user, from the home folder and from variables of the host, stay out of images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.languages import LANGUAGES
from factory.recipes.lint.lint import lint, lint_all
from factory.recipes.model import Problem

MakeRecipe = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[4]
HEAD = "Bootstrap: docker\nFrom: debian:12\n"
ABOUT = '[recipe]\nname = "{}"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\nmaintainers = ["@a"]\n'
TEST = '[[test]]\nname = "t"\nrun = "true"\n'
QUIET = "[quiet]\nhints = false\n"
SET = {language.name: f"export {language.assignments()}" for language in LANGUAGES}


def found(make: MakeRecipe, text: str, toml: str = TEST + QUIET, name: str = "one") -> list[str]:
    folder = make(name, toml=ABOUT.format(name) + toml, definition=text)
    return [str(problem).removeprefix(f"{folder}/") for problem in lint(folder, ()) if problem.rule != "pins"]


def unset(root: Path) -> list[Problem]:
    return [problem for problem in lint_all(root) if problem.rule != "pins"]


@pytest.mark.parametrize(
    ("language", "command"),
    [
        ("Python", "pip install x==1"),
        ("Python", "/opt/python/bin/pip3.11 install x==1"),
        ("Python", "apt-get update && apt-get install -y python3-numpy"),
        ("Python", "dnf install -y python3.12"),
        ("Python", "python3 -m venv /opt/x"),
        ("Python", "micromamba install -y x"),
        ("R", "Rscript -e 'install.packages(\"x\")'"),
        ("R", "apt-get update && apt-get install -y r-base-core"),
        ("R", "install2.r x"),
        ("Julia", "julia -e 'using Pkg'"),
        ("Perl", "cpanm X::Y"),
        ("Perl", "apt-get update && apt-get install -y libdbi-perl"),
    ],
)
def test_an_image_with_a_language_sets_its_variables(make: MakeRecipe, language: str, command: str) -> None:
    (problem,) = found(make, f"{HEAD}%environment\n export A=1\n%post\n {command}\n")
    assert problem.startswith(f"image.def:3: warning: the image has {language}, but does not set ")
    assert problem.endswith(f"; write under %environment: {SET[language]}")
    assert found(make, f"{HEAD}%environment\n {SET[language]}\n%post\n {command}\n", name="two") == []


@pytest.mark.parametrize(
    ("image", "language"),
    [
        ("python:3.12-slim", "Python"),
        ("pytorch/pytorch:2.1.2", "Python"),
        ("nvcr.io/nvidia/tensorflow:24.01", "Python"),
        ("ghcr.io/nvidia/jax:1", "Python"),
        ("condaforge/miniforge3:24", "Python"),
        ("quay.io/jupyter/base-notebook:1", "Python"),
        ("rocker/r-ver:4.4.1", "R"),
        ("r-base:4.4.1", "R"),
        ("julia:1.10", "Julia"),
        ("perl:5.38", "Perl"),
    ],
)
def test_an_image_has_the_language_of_its_base(make: MakeRecipe, image: str, language: str) -> None:
    (problem,) = found(make, f"Bootstrap: docker\nFrom: {image}\n")
    assert f"the image has {language}, " in problem


@pytest.mark.parametrize(
    "text",
    [
        "%post\n perl -pi -e s/a/b/ /etc/x\n",
        "%post\n # pip install x\n",
        "%files from a\n /x\n",
        "%post\n chmod -R a+r /opt\n apt-get update\n apt-get install -y git\n",
    ],
)
def test_an_image_without_one_sets_nothing(make: MakeRecipe, text: str) -> None:
    assert found(make, f"Bootstrap: docker\nFrom: python:3\nStage: a\n{HEAD}{text}") == []


@pytest.mark.parametrize(
    "lines",
    [
        "export PYTHONNOUSERSITE=1 PYTHONPATH=",
        "PYTHONNOUSERSITE=yes; export PYTHONNOUSERSITE\n unset PERL5LIB PYTHONPATH",
        'export PYTHONNOUSERSITE="1"\n export PYTHONPATH=/opt/app',
    ],
)
def test_each_way_to_set_them_counts(make: MakeRecipe, lines: str) -> None:
    assert found(make, f"{HEAD}%environment\n {lines}\n%runscript\n exec python3\n") == []


@pytest.mark.parametrize(
    "lines", ["# export PYTHONPATH=", "export PYTHONPATH=/opt/app:$PYTHONPATH", "export MYPYTHONPATH="]
)
def test_what_keeps_the_host_s_value_does_not_count(make: MakeRecipe, lines: str) -> None:
    (problem,) = found(make, f"{HEAD}%environment\n export PYTHONNOUSERSITE=1\n {lines}\n%runscript\n exec python3\n")
    assert "does not set PYTHONPATH: " in problem
    assert problem.endswith("; write under %environment: export PYTHONPATH=")


def test_the_environment_of_run_counts_and_tests_show_a_language(make: MakeRecipe) -> None:
    toml = '[[test]]\nname = "t"\nrun = "python -c 1"\n' + QUIET
    assert "the image has Python" in found(make, HEAD, toml)[0]
    run = '[run]\nenv = { PYTHONNOUSERSITE = "1", PYTHONPATH = "" }\n'
    assert found(make, HEAD, toml + run, name="two") == []


def test_a_base_recipe_s_environment_counts_and_so_does_its_language(make: MakeRecipe) -> None:
    upon = "Bootstrap: recipe\nFrom: {{ base }}\n%environment\n export A=1\n"
    root = make("base", toml=ABOUT.format("base") + TEST + QUIET, definition=f"{HEAD}%post\n pip install x==1\n").parent
    make("tool", toml=ABOUT.format("tool") + '[build]\nbase = "recipe://base"\n' + TEST + QUIET, definition=upon)
    assert [problem.place.path.parent.name for problem in unset(root)] == ["base", "tool"]
    (root / "base" / "image.def").write_text(f"{HEAD}%environment\n {SET['Python']}\n%post\n pip install x==1\n")
    assert unset(root) == []


def test_the_documentation_lists_the_variables() -> None:
    text = (ROOT / "docs/maintaining.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \| `(export .+)` \|$", text, re.MULTILINE) == list(SET.items())

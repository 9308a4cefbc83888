from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint

MakeRecipe = Callable[..., Path]
TOML = """\
[recipe]
name = "one"
version = "1"
[build]
base = "docker://debian:12"
[quiet]
caches = false
hints = false
"""
QUESTION = "asks a question that nobody answers in a build"


def problems(make: MakeRecipe, rule: str, post: str, toml: str = TOML) -> list[str]:
    folder = make("one", toml=toml, definition=f"Bootstrap: docker\nFrom: {{{{ base }}}}\n%post\n{post}\n")
    found = [problem for problem in lint(folder, ()) if problem.rule == rule]
    assert all(problem.warning for problem in found)
    return [f"{problem.place.line}: {problem.message}; {problem.remedy}" for problem in found]


@pytest.mark.parametrize(
    ("command", "what", "yes"),
    [
        ("apt-get upgrade", "apt-get upgrade", "-y"),
        ("DEBIAN_FRONTEND=noninteractive apt install git", "apt install", "-y"),
        ("/usr/bin/dnf install gcc", "dnf install", "-y"),
        ("yum --nogpgcheck update", "yum update", "-y"),
        ("zypper install gcc", "zypper install", "-y"),
        ("conda create -n env python=3.11", "conda create", "-y"),
        ("micromamba install -c conda-forge numpy", "micromamba install", "-y"),
        ("pip uninstall numpy", "pip uninstall", "-y"),
    ],
)
def test_a_command_that_asks_a_question_is_a_warning(make: MakeRecipe, command: str, what: str, yes: str) -> None:
    assert problems(make, "asks", f"true\n{command}") == [f"5: {what} without {yes} {QUESTION}; add {yes} to it"]


@pytest.mark.parametrize(
    "command",
    [
        "apt-get -y upgrade",
        "apt-get install -qqy git",
        "apt-get install --assume-yes git",
        "dnf -y install gcc",
        "dnf install --assumeyes gcc",
        "zypper --non-interactive install gcc",
        "conda install --yes numpy",
        "micromamba create -y -n env",
        "conda env create -f environment.yml",
        "pip install numpy",
        "apk add git",
        "echo install",
    ],
)
def test_an_answered_question_is_no_problem(make: MakeRecipe, command: str) -> None:
    assert problems(make, "asks", command) == []


@pytest.mark.parametrize(
    ("post", "problem"),
    [
        (
            "conda install -y numpy",
            "4: the package cache of conda stays in the image; end %post with conda clean --all --yes",
        ),
        ("dnf -y install gcc", "4: the package cache of dnf stays in the image; end %post with dnf clean all"),
        ("apk add git", "4: the package cache of apk stays in the image; write apk add --no-cache"),
        ("zypper -n in gcc", "4: the package cache of zypper stays in the image; end %post with zypper clean --all"),
        (
            "dnf -y install gcc\ndnf clean all\ndnf -y install git",
            "4: the package cache of dnf stays in the image; end %post with dnf clean all",
        ),
        (
            "apt-get update\napt-get install -y git",
            "5: the package lists of apt-get stay in the image; end %post with rm -rf /var/lib/apt/lists/*",
        ),
    ],
)
def test_a_package_cache_that_no_rule_removes_is_a_warning(make: MakeRecipe, post: str, problem: str) -> None:
    assert problems(make, "caches", post) == [problem]


def test_a_package_cache_that_a_rule_removes_is_no_problem(make: MakeRecipe) -> None:
    assert problems(make, "caches", "dnf -y install gcc", TOML.replace("caches = false", "")) == []


@pytest.mark.parametrize(
    "post",
    [
        "conda install -y numpy\nconda clean -afy",
        "dnf -y install gcc && rm -rf /var/cache/dnf",
        "apk add --no-cache git",
        "apt-get update\napt-get install -y git\nrm -rf /var/lib/apt/lists/*",
    ],
)
def test_a_removed_cache_is_no_problem(make: MakeRecipe, post: str) -> None:
    assert problems(make, "caches", post) == []

"""Lint of recipes with a Dockerfile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint, scripts

ABOUT = '[recipe]\nname = "one"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\nmaintainers = ["@a"]\n'
BUILD = '[build]\ndockerfile = "Dockerfile"\n'
TEST = '[[test]]\nname = "t"\nrun = "true"\n'
PINNED = "debian@sha256:" + "a" * 64


def problems(
    root: Path, text: str, toml: str = ABOUT + BUILD + TEST, files: Mapping[str, str] | None = None
) -> list[str]:
    folder = root / "one"
    folder.mkdir(exist_ok=True)
    for name, content in {"recipe.toml": toml, "Dockerfile": text, **(files or {})}.items():
        (folder / name).write_text(content)
    return [str(problem).removeprefix(f"{folder}/") for problem in lint(folder, ())]


def test_a_sound_dockerfile_has_no_problems(tmp_path: Path) -> None:
    text = f"FROM {PINNED}\nRUN apt-get update && apt-get install -y hello=2.10\nCOPY a /\nENTRYPOINT hello\n"
    assert problems(tmp_path, text, files={"a": ""}) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("RUN apt-get install git=1", "Dockerfile:2: warning: apt-get install without -y asks a question"),
        (
            "RUN <<EOF\necho\napt-get update\napt-get install x=1\nEOF",
            "Dockerfile:5: warning: apt-get install without -y",
        ),
        ("RUN pip install numpy", "Dockerfile:2: warning: pip install takes the newest versions"),
        ("RUN curl -O https://example.org/x", "Dockerfile:2: warning: a download is not verified and can change"),
        ("RUN echo x > /root/x", "Dockerfile:2: warning: /root/x is written in RUN, but /root is the user's own"),
        (
            "ADD https://example.org/x /x",
            "Dockerfile:2: warning: ADD https://example.org/x is not verified and can change",
        ),
        ("RUN python3 -V", "; write ENV PYTHONNOUSERSITE=1 PYTHONPATH="),
        ("RUN --mount=type=secret,id=a true", "Dockerfile:2: error: RUN --mount=type=secret would give a secret"),
        ("COPY missing /", "Dockerfile:2: error: COPY: 'missing' does not exist in the recipe's folder"),
        ("FORM x", "Dockerfile:2: error: there is no instruction 'FORM'; did you mean FROM?"),
        ("FROM debian:12", "Dockerfile:2: warning: the image docker://debian:12 is not pinned to a digest"),
    ],
)
def test_each_problem_is_reported_with_its_line(tmp_path: Path, line: str, found: str) -> None:
    reported = problems(tmp_path, f"FROM {PINNED}\n{line}\n")
    assert any(found in one for one in reported), reported
    assert not any("%" in one for one in reported)  # nothing about definition files


def test_variables_that_env_sets_are_known(tmp_path: Path) -> None:
    assert problems(tmp_path, f"FROM {PINNED}\nENV PYTHONNOUSERSITE=1 PYTHONPATH=\nRUN python3 -V\n") == []


@pytest.mark.parametrize(
    ("build", "found"),
    [
        ('target = "none"\n', "Dockerfile: error: there is no stage 'none'; its stages: 0"),
        ('args = { A = "1" }\n', "recipe.toml:9: error: the argument 'A' of [build] args has no ARG in the Dockerfile"),
        ('base = "docker://debian:12"\n', "recipe.toml:9: error: a recipe with a Dockerfile has no base; remove base"),
        ('base = "recipe://other"\n', "singfactory convert begins one"),
        ('definition = "image.def"\n', "recipe.toml:9: error: the recipe has both a definition and a dockerfile"),
    ],
)
def test_problems_of_the_recipe_are_reported_at_their_key(tmp_path: Path, build: str, found: str) -> None:
    reported = problems(tmp_path, f"FROM {PINNED}\n", ABOUT + BUILD + build + TEST)
    assert any(found in one for one in reported), reported


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("../one/Dockerfile", "dockerfile is '../one/Dockerfile', which is not in the recipe's folder"),
        ("/etc/passwd", "dockerfile is '/etc/passwd', which is not in the recipe's folder"),
        ("Dockerfle", "there is no file Dockerfle; write a Dockerfile there, or name another one"),
        ("link", "dockerfile is 'link', which is not in the recipe's folder"),
    ],
)
def test_a_dockerfile_elsewhere_is_refused(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/link").symlink_to("/etc/passwd")
    toml = ABOUT + BUILD.replace('"Dockerfile"', f'"{name}"') + TEST
    reported = problems(tmp_path, "FROM scratch\n", toml)
    assert any(found in one for one in reported), reported


def test_a_target_needs_a_dockerfile(tmp_path: Path) -> None:
    toml = ABOUT + '[build]\ntarget = "x"\n' + TEST
    reported = problems(tmp_path, "", toml, {"image.def": f"Bootstrap: docker\nFrom: {PINNED}\n"})
    assert reported == [
        "recipe.toml:8: error: target is a stage of a Dockerfile, and there is none; remove it",
    ]


def test_shellcheck_sees_each_run_at_its_line(tmp_path: Path) -> None:
    text = f"FROM {PINNED}\nRUN --mount=type=cache,target=/c one \\\n  # why\n  two\n"
    text += 'SHELL ["/bin/bash", "-c"]\nRUN <<EOF\nthree\nEOF\n'
    problems(tmp_path, text)
    assert [(script.place.line, script.body, script.dialect) for script in scripts(tmp_path / "one")] == [
        (1, "one \\\n\\\n  two\n", "sh"),
        (6, "three\n", "bash"),
    ]

"""`singfactory new --dockerfile`: the recipe that it makes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.errors import FactoryError, UsageError
from factory.recipes.dockerfile import scaffold as dockerfiles
from factory.recipes.dockerfile.scaffold import Found
from factory.recipes.lint.lint import lint
from factory.recipes.load import load_recipe
from factory.recipes.model import ProblemError, Recipe
from factory.recipes.scaffold import create

PINNED = "pytorch/pytorch@sha256:" + "a" * 64


def read(folder: Path, text: str, files: Mapping[str, str] | None = None, target: str = "", **args: str) -> Found:
    for name, content in {"app/Dockerfile": text, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return dockerfiles.read(folder / "app/Dockerfile", folder / "app", "tool", target=target, args=args)


def made(folder: Path, found: Found) -> Recipe:
    made = create(folder / "recipes", "tool", found.content, executable=found.executable, links=found.links)
    assert [str(one) for one in lint(made, ())] == []
    return load_recipe(made)


def test_the_recipe_has_what_the_dockerfile_names_and_lints_clean(tmp_path: Path) -> None:
    text = f'FROM {PINNED} AS run\nARG EPOCHS\nWORKDIR /app\nCOPY src *.txt ./\nCMD ["python", "main.py"]\nFROM run\n'
    files = {
        "app/src/main.py": "x",
        "app/a.txt": "a",
        "app/.dockerignore": "*.pyc\n",
        "app/other": "",
        "app/src/x.pyc": "",
    }
    (tmp_path / "app/src").mkdir(parents=True)
    (tmp_path / "app/src/link").symlink_to("main.py")
    recipe = made(tmp_path, read(tmp_path, text, files, target="run", EPOCHS="3"))
    there = {path.relative_to(recipe.folder).as_posix() for path in recipe.folder.rglob("*") if not path.is_dir()}
    assert there == {"Dockerfile", ".dockerignore", "recipe.toml", "a.txt", "src/main.py", "src/link", "src/x.pyc"}
    assert (recipe.build.dockerfile, recipe.build.target, dict(recipe.build.args)) == (
        "Dockerfile",
        "run",
        {"EPOCHS": "3"},
    )
    assert dict(recipe.run.env) == {"PYTHONNOUSERSITE": "1", "PYTHONPATH": ""}
    (test,) = recipe.tests
    assert test.run == "cd /app && command -v python >/dev/null && test -r main.py && echo ok"


@pytest.mark.parametrize(
    ("lines", "run"),
    [
        ("ENTRYPOINT exec /opt/tool --flag\nCMD x", "command -v /opt/tool >/dev/null && echo ok"),
        ('ENTRYPOINT ["a"]\nWORKDIR /x\nWORKDIR y', "cd /x/y && command -v a >/dev/null && echo ok"),
        ('CMD ["lost"]\nENTRYPOINT ["$X", "run.sh"]', "test -r run.sh && echo ok"),
        ("USER nobody", "true && echo ok"),
        ("CMD A=1 'unclosed", "true && echo ok"),
    ],
)
def test_the_first_test_looks_for_what_is_started(tmp_path: Path, lines: str, run: str) -> None:
    recipe = made(tmp_path, read(tmp_path, f"FROM {PINNED.replace('pytorch', 'tool')}\n{lines}\n"))
    assert recipe.tests[0].run == run


def test_programs_stay_programs_and_git_is_left_out(tmp_path: Path) -> None:
    files = {"app/run": "#!/bin/sh\n", "app/.git/HEAD": "x"}
    read(tmp_path, "FROM scratch\n", files)
    (tmp_path / "app/run").chmod(0o700)
    found = read(tmp_path, "FROM scratch\nCOPY . /\n")
    assert found.left_out == (".git",)
    assert ".git/HEAD" not in found.content
    recipe = made(tmp_path, found)
    assert os.access(recipe.folder / "run", os.X_OK)
    assert not os.access(recipe.folder / "Dockerfile", os.X_OK)


def test_a_gpu_image_gets_a_gpu_test(tmp_path: Path) -> None:
    recipe = made(tmp_path, read(tmp_path, f"FROM nvidia/cuda@sha256:{'b' * 64}\n"))
    assert (recipe.run.gpu, [test.gpu for test in recipe.tests]) == ("nvidia", [False, True])


def test_the_version_is_the_tags(tmp_path: Path) -> None:
    found = read(tmp_path, "ARG V=2.1.2-cuda\nFROM pytorch/pytorch:$V\n")
    assert 'version = "2.1.2"' in str(found.content["recipe.toml"])


def test_wrong_files_are_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"app/Dockerfile:2: COPY: 'main\.py' does not exist"):
        read(tmp_path, "FROM scratch\nCOPY main.py /\n")
    with pytest.raises(ProblemError, match=r"app/Dockerfile:2: RUN --mount=type=ssh"):
        read(tmp_path, "FROM scratch\nRUN --mount=type=ssh true\n")
    with pytest.raises(FactoryError, match="there is no stage 'x'"):
        read(tmp_path, "FROM scratch\n", target="x")


def test_data_is_not_copied_into_the_repository(tmp_path: Path) -> None:
    read(tmp_path, "FROM scratch\n")
    with (tmp_path / "app/data").open("wb") as file:
        file.truncate(100_000_001)
    with pytest.raises(UsageError) as raised:
        read(tmp_path, "FROM scratch\nCOPY data /\n")
    assert "are larger than 100 MB" in raised.value.what
    assert "hide data in .dockerignore" in raised.value.fix

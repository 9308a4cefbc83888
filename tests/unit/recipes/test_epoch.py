from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from factory.recipes.epoch import EARLIEST, epoch_of
from factory.recipes.load import load_recipe
from factory.recipes.model import Recipe

ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CEILING_DIRECTORIES": "/tmp",
    **{f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
TOML = '[recipe]\nname = "{name}"\nversion = "1"\n[build]\nbase = "{base}"\n'


def write(root: Path, name: str, *, base: str = "docker://debian:12", time: int) -> Recipe:
    folder = root / "recipes" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("recipe.toml", TOML.format(name=name, base=base)), ("image.def", "Bootstrap: docker\n")):
        (folder / file).write_text(text)
        os.utime(folder / file, (time, time))
    return load_recipe(folder)


def commit(root: Path, seconds: int) -> None:
    env = {**ENV, "GIT_COMMITTER_DATE": f"@{seconds} +0000"}
    if not (root / ".git").exists():
        subprocess.run(["git", "-C", root, "init", "-q"], check=True, env=env)
    for command in (["add", "."], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", root, *command], check=True, env=env)


def test_it_is_the_time_of_the_last_commit_to_the_recipe_whatever_times_the_files_have(tmp_path: Path) -> None:
    recipe = write(tmp_path, "one", time=1_800_000_000)
    commit(tmp_path, 1_700_000_000)
    write(tmp_path, "two", time=1_800_000_000)
    commit(tmp_path, 1_750_000_000)
    assert epoch_of(recipe, ENV) == 1_700_000_000


@pytest.mark.parametrize("uncommitted", [True, False])
def test_without_git_and_with_changes_it_is_the_time_of_the_newest_file(tmp_path: Path, *, uncommitted: bool) -> None:
    if uncommitted:
        write(tmp_path, "one", time=1_600_000_000)
        commit(tmp_path, 1_700_000_000)
        (tmp_path / "recipes/one/more").write_text("x")
    recipe = write(tmp_path, "one", time=1_600_000_000)
    (tmp_path / "recipes/one/more").write_text("x")
    os.utime(tmp_path / "recipes/one/more", (1_650_000_000, 1_650_000_000))
    assert epoch_of(recipe, ENV) == 1_650_000_000


def test_what_programs_leave_in_the_folder_does_not_move_it(tmp_path: Path) -> None:
    recipe = write(tmp_path, "one", time=1_600_000_000)
    for path in ("__pycache__/x.pyc", ".cache/x", ".hidden"):
        (recipe.folder / path).parent.mkdir(exist_ok=True)
        (recipe.folder / path).write_text("x")
    assert epoch_of(recipe, ENV) == 1_600_000_000


def test_no_base_recipe_is_newer_so_that_its_files_keep_their_times(tmp_path: Path) -> None:
    write(tmp_path, "lowest", time=1_690_000_000)
    write(tmp_path, "lower", base="recipe://lowest", time=1_600_000_000)
    upper = write(tmp_path, "upper", base="recipe://lower", time=1_650_000_000)
    assert epoch_of(upper, ENV) == 1_690_000_000


def test_recipes_in_a_circle_or_with_a_missing_base_have_one_too(tmp_path: Path) -> None:
    write(tmp_path, "one", base="recipe://two", time=1_600_000_000)
    two = write(tmp_path, "two", base="recipe://one", time=1_500_000_000)
    assert epoch_of(two, ENV) == 1_600_000_000
    assert epoch_of(write(tmp_path, "three", base="recipe://gone", time=1_400_000_000), ENV) == 1_400_000_000


def test_it_is_never_before_what_zip_archives_can_tell(tmp_path: Path) -> None:
    assert epoch_of(write(tmp_path, "one", time=0), ENV) == EARLIEST


@pytest.mark.slow
def test_a_folder_in_a_folder_in_a_folder_may_be_as_deep_as_paths_allow(tmp_path: Path) -> None:
    recipe = write(tmp_path, "one", time=1_600_000_000)
    deep = recipe.folder
    for _ in range(1_200):
        deep = deep / "a"
        deep.mkdir()
    (deep / "file").write_text("x")
    os.utime(deep / "file", (1_650_000_000, 1_650_000_000))
    assert epoch_of(recipe, ENV) == 1_650_000_000
    subprocess.run(["rm", "-rf", recipe.folder], check=True)  # too deep for pytest's own cleaning

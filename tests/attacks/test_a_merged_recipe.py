"""The attacker wrote a recipe that a maintainer has merged. It decides what its own image holds, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from factory.recipes.epoch import epoch_of
from factory.recipes.load import load_recipe
from tests.attacks.git_traps import TOKEN, TRAPS, Spy, Trap, commit, git, set_trap, traps
from tests.factory_project import Project

ABOUT = '[recipe]\nname = "bad"\nversion = "1"\n[build]\nbase = "docker://debian:12"\n'


@pytest.fixture
def spy(tmp_path: Path) -> Spy:
    return Spy(tmp_path / "spied")


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """The folder of a merged recipe in a maintainer's clone."""
    folder = tmp_path / "clone/recipes/bad"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(ABOUT)
    (folder / "image.def").write_text("Bootstrap: docker\nFrom: debian:12\n")
    (tmp_path / "clone/factory.toml").write_text("")
    return folder


def env(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GITHUB_TOKEN": TOKEN, **more}


# Git


@traps
def test_a_folder_that_is_also_a_repository_starts_no_program(
    trap: Trap, spy: Spy, merged: Path, tmp_path: Path
) -> None:
    set_trap(trap, spy, merged, merged)
    commit(tmp_path / "clone")
    assert git(tmp_path / "clone", "ls-files", "recipes/bad/HEAD", "recipes/bad/config").count("\n") == 1
    assert epoch_of(load_recipe(merged), env(tmp_path)) > 0
    assert spy.saw == ""


def test_publishing_a_recipe_that_is_also_a_repository_starts_no_program(project: Project, spy: Spy) -> None:
    folder = project.recipe("bad")
    commit(project.folder)
    project.ok("build", "bad")
    project.ok("test", "bad")
    set_trap(TRAPS["fsmonitor"], spy, folder, folder)
    project.run("publish", "bad", GITHUB_TOKEN=TOKEN)
    assert spy.saw == ""


def test_attributes_choose_no_filter_that_the_user_has_set_up(spy: Spy, merged: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text(f'[filter "x"]\nclean = "{spy.command}; cat"\nsmudge = cat\n')
    (merged / ".gitattributes").write_text("* filter=x\n")
    commit(tmp_path / "clone")
    os.utime(merged / "recipe.toml", (1, 1))
    assert epoch_of(load_recipe(merged), env(tmp_path)) == 1_700_000_000
    assert spy.saw == ""


def test_git_itself_is_given_no_token(spy: Spy, merged: Path, tmp_path: Path) -> None:
    commit(tmp_path / "clone")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text(f'#!/bin/sh\n{spy.command}\nexec {shutil.which("git")} "$@"\n')
    (tmp_path / "bin/git").chmod(0o755)
    epoch_of(load_recipe(merged), env(tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}"))
    assert spy.saw == "a program ran"


@pytest.mark.parametrize("trap", [TRAPS["fsmonitor"]])
@pytest.mark.parametrize("place", ["", "deep/down", ".hidden"])
def test_a_repository_inside_a_recipe_is_never_built(project: Project, spy: Spy, trap: Trap, place: str) -> None:
    folder = project.recipe("bad") / place
    folder.mkdir(parents=True, exist_ok=True)
    set_trap(trap, spy, folder, folder)
    for command in ("lint", "build"):
        done = project.run(command, "bad", GITHUB_TOKEN=TOKEN)
        assert done.code == 2
        assert "a git repository inside the folder of recipes" in done.out + done.err
    assert spy.saw == ""


# Programs that are started in the recipe's folder


DEBOOTSTRAP = "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://127.0.0.1:9/\n"


def test_a_program_in_the_recipe_s_folder_is_not_found_by_a_path_with_a_dot(project: Project, spy: Spy) -> None:
    folder = project.recipe("bad", definition=DEBOOTSTRAP)
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace(f'base = "{project.base}"', ""))
    for name in ("mksquashfs", "wget", "id", "mkdir", "cat", "sed", "dpkg", "readlink", "chroot", "rm", "uname"):
        (folder / name).write_text(f"#!/bin/sh\n/usr/bin/{spy.command}\nexit 1\n")
        (folder / name).chmod(0o755)
    for path in (f".:{os.environ['PATH']}", f":{os.environ['PATH']}", f"../bad:{os.environ['PATH']}"):
        done = project.run("build", "bad", "--force", PATH=path, GITHUB_TOKEN=TOKEN)
        assert "127.0.0.1:9" in done.err + done.out  # debootstrap came as far as that
        assert spy.saw == ""


def test_a_library_in_the_recipe_s_folder_is_not_loaded_by_a_search_path_with_a_gap(project: Project) -> None:
    folder = project.recipe("bad")
    for name in ("libc.so.6", "libz.so.1", "libpthread.so.0"):
        (folder / name).write_text("what is loaded instead of this could be a program")
    for path in (":", ":/usr/lib", "/usr/lib::", "."):
        project.ok("build", "bad", "--force", LD_LIBRARY_PATH=path)

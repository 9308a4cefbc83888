"""`singfactory new`: what it starts from, and recipes that follow a project."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from factory.cli import main
from factory.recipes.load import load_recipe

ROOT = Path(__file__).resolve().parents[3]
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A factory, which is the working folder, and a project beside it in a repository of its own."""
    (tmp_path / "factory/recipes").mkdir(parents=True)
    (tmp_path / "factory/factory.toml").touch()
    shutil.copytree(ROOT / "tests/projects/web-flask", tmp_path / "my project")
    monkeypatch.chdir(tmp_path / "factory")
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-qm", "first"),
        ("remote", "add", "origin", "git@github.com:lab/guestbook.git"),
    ):
        subprocess.run([*GIT, *command], cwd=tmp_path / "my project", check=True)
    return tmp_path


def test_the_commit_of_the_project_is_recorded_without_a_login(folder: Path) -> None:
    assert main(["new", "guestbook", "--project", "../my project", "-q"]) == 0
    project = load_recipe(folder / "factory/recipes/guestbook").project
    assert project.source == "https://github.com/lab/guestbook"
    assert len(project.commit) == 40
    assert not project.dirty


def test_a_linked_folder_and_a_lock_with_changes_are_seen(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "my project")
    with (folder / "my project/uv.lock").open("a") as file:
        file.write("\n")
    assert main(["new", "guestbook", "--project", str(folder / "link"), "-q"]) == 0
    project = load_recipe(folder / "factory/recipes/guestbook").project
    assert project.dirty
    assert project.facts()["commit"].endswith("-dirty")


def test_update_follows_the_lock_and_says_when_there_is_nothing_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "guestbook", "--project", "../my project", "--group", "dev"]) == 0
    capsys.readouterr()
    assert main(["new", "guestbook", "--project", "../my project", "--update"]) == 0
    assert "nothing to do: guestbook has what uv.lock says" in capsys.readouterr().err
    lock = folder / "my project/uv.lock"
    lock.write_text(lock.read_text().replace('name = "gunicorn"\nversion = "', 'name = "gunicorn"\nversion = "1!'))
    assert main(["new", "guestbook", "--project", "../my project", "--update"]) == 0
    assert "written: files/requirements.txt, tests/distributions.txt" in capsys.readouterr().err
    recipe = load_recipe(folder / "factory/recipes/guestbook")
    assert recipe.project.dirty
    assert recipe.project.groups == ("dev",)
    assert "gunicorn==1!" in (recipe.folder / "files/requirements.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (["new", "x"], 2, ["new needs something to start from"]),
        (["new", "x", "--from", "python:3.12", "--update"], 2, ["--update needs --project"]),
        (["new", "X y", "--project", "../my project"], 2, ["not a recipe name: 'X y'"]),
        (["new", "x", "--project", "../none"], 3, ["there is no folder ../none"]),
        (["new", "x", "--project", "../my project", "--update"], 3, ["there is no recipe x"]),
        (["new", "x", "--project", "../my project", "--extra", "plots"], 2, ["has no extra 'plots'"]),
        (["new", "x", "--project", "/dev/null"], 3, ["there is no folder /dev/null"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_command_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, lines: list[str]
) -> None:
    assert main(arguments) == code
    err = capsys.readouterr().err
    for line in lines:
        assert line in err
    assert list(Path("recipes").iterdir()) == []


def test_an_existing_recipe_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "factory/recipes/x").mkdir()
    assert main(["new", "x", "--project", "../my project"]) == 2
    assert "--update" in capsys.readouterr().err

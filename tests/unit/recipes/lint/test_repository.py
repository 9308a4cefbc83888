from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint, lint_all
from factory.recipes.lint.repository import check_folder, check_root

MakeRecipe = Callable[..., Path]


def put(folder: Path, *names: str) -> None:
    """Files of these names, or folders with a file where a name ends in /."""
    for name in names:
        path = folder / (f"{name}x" if name.endswith("/") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def told(folder: Path) -> list[str]:
    return [str(problem.place.path.relative_to(folder)) for problem in check_folder(folder)]


@pytest.mark.parametrize(
    "names",
    [
        ("HEAD", "config", "objects/", "refs/"),
        ("head", "OBJECTS/", "Refs/"),
        ("HEAD", "commondir"),
        ("HEAD", "objects", "refs"),
    ],
)
@pytest.mark.parametrize("place", [".", "deep/down", ".hidden"])
def test_a_folder_that_git_takes_for_a_repository_is_found_wherever_it_is(
    tmp_path: Path, place: str, names: tuple[str, ...]
) -> None:
    put(tmp_path / place, *names)
    assert told(tmp_path) == [os.path.normpath(f"{place}/HEAD")]


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git", "git~1", "GIT~1", ".git ", ".git.", ".g\u200cit", ".git:x"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_whatever_a_file_system_takes_for_git_s_own_name_is_found(tmp_path: Path, name: str, kind: str) -> None:
    place = tmp_path / "below" / name
    place.parent.mkdir()
    if kind == "link":
        place.symlink_to("nowhere")
    else:
        put(place.parent, name + "/" * (kind == "folder"))
    assert told(tmp_path) == [f"below/{name}"]


def test_files_that_belong_to_every_repository_are_no_repository(tmp_path: Path) -> None:
    put(
        tmp_path,
        ".gitignore",
        ".gitattributes",
        ".github/",
        "x.git/",
        "git",
        "HEAD",
        "objects/",
        "more/refs/",
        "a.git~1",
    )
    assert told(tmp_path) == []


@pytest.mark.slow
def test_links_are_not_followed_and_depth_does_not_matter(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "HEAD", "objects/", "refs/")
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert told(tmp_path / "recipe") == []
    assert told(tmp_path / "link") == []
    deep = tmp_path / "recipe"
    for _ in range(1_200):
        deep = deep / "a"
        deep.mkdir()
    put(deep, ".git")
    assert len(told(tmp_path / "recipe")) == 1
    subprocess.run(["rm", "-rf", tmp_path / "recipe"], check=True)  # too deep for pytest's own cleaning


def test_the_folder_of_recipes_may_be_the_top_of_the_project_s_repository(tmp_path: Path) -> None:
    put(tmp_path, ".git/")
    assert list(check_root(tmp_path)) == []
    put(tmp_path, "one/.git")
    assert [problem.place.path for problem in check_root(tmp_path)] == [tmp_path / "one/.git"]


def test_lint_refuses_such_a_recipe_and_what_is_hidden_beside_the_recipes_once_each(make: MakeRecipe) -> None:
    folder = make("one", files={"HEAD": "x", "objects/x": "x", "refs/x": "x"})
    root = folder.parent
    message = "a git repository inside the folder of recipes: git would run the programs that its settings name"
    remedy = "remove or rename its objects, refs and HEAD"
    assert [str(problem) for problem in lint(folder, ())] == [f"{folder}/HEAD: error: {message}; {remedy}"]
    put(root / ".hidden", "HEAD", "commondir")
    put(root / "no recipe", ".git/")
    put(root, "HEAD", "objects/", "refs/")
    repositories = [str(one.place.path.relative_to(root)) for one in lint_all(root) if one.message == message]
    assert sorted(repositories) == [".hidden/HEAD", "HEAD", "no recipe/.git", "one/HEAD"]

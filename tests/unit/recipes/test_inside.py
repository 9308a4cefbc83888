from __future__ import annotations

from pathlib import Path

import pytest

from factory.recipes.inside import LeavesFolderError, resolve_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "inner"
    (inner / "a" / "b").mkdir(parents=True)
    (inner / "a" / "up").symlink_to("../a/b")
    (inner / "again").symlink_to("a/up")
    (inner / "out").symlink_to("../elsewhere")
    (inner / "and-back").symlink_to("../inner/a")
    (inner / "absolute").symlink_to(inner / "a")
    (inner / "circle").symlink_to("circle")
    return inner


@pytest.mark.parametrize(
    ("path", "end"),
    [("a/b", "a/b"), ("./a//b/", "a/b"), ("again", "a/b"), ("again/x", "a/b/x"), ("a/../a", "a"), ("none", "none")],
)
def test_links_inside_are_followed(folder: Path, path: str, end: str) -> None:
    assert resolve_inside(folder, path) == folder / end


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "is an absolute path"),
        ("../x", "leaves the recipe's folder"),
        ("a/../../x", "leaves the recipe's folder"),
        ("out", "leaves the recipe's folder"),
        ("and-back", "leaves the recipe's folder"),
        ("and-back/b", "leaves the recipe's folder"),
        ("absolute", "is a link to an absolute path"),
        ("absolute/b", "passes absolute, a link to an absolute path"),
        ("circle", "is a link in a circle"),
    ],
)
def test_what_leaves_on_any_step_is_refused(folder: Path, path: str, why: str) -> None:
    with pytest.raises(LeavesFolderError, match=f"^{why}$"):
        resolve_inside(folder, path)

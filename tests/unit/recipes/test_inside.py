from __future__ import annotations

from pathlib import Path

import pytest

from factory.recipes.inside import (
    LIMIT,
    LeavesFolderError,
    UnusableError,
    folder_inside,
    leaves,
    read_inside,
    resolve_inside,
)


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
        ("circle", "is a link in a loop"),
    ],
)
def test_what_leaves_on_any_step_is_refused(folder: Path, path: str, why: str) -> None:
    with pytest.raises(LeavesFolderError, match=f"^{why}$"):
        resolve_inside(folder, path)


def test_what_leaves_the_folder_says_how(folder: Path) -> None:
    told = {entry.name: leaves(folder, entry.name) for entry in folder.iterdir()}
    assert {name for name, why in told.items() if not why} == {"a", "again"}


def test_a_folder_is_where_it_really_is(folder: Path) -> None:
    assert folder_inside(folder, "again") == folder / "a/b"
    assert folder_inside(folder, "none") is None
    with pytest.raises(LeavesFolderError):
        folder_inside(folder, "absolute")


def test_a_file_is_read_where_it_really_is_and_to_a_limit(folder: Path) -> None:
    (folder / "a/b/file").write_bytes(b"x" * LIMIT)
    assert len(read_inside(folder, "again/file")) == LIMIT
    (folder / "a/b/file").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(UnusableError, match="is larger than 256 kB"):
        read_inside(folder, "again/file")
    with pytest.raises(UnusableError, match="is a folder"):
        read_inside(folder, "again")
    with pytest.raises(LeavesFolderError):
        read_inside(folder, "out")
    with pytest.raises(FileNotFoundError):
        read_inside(folder, "none")
    with pytest.raises(UnusableError, match="cannot be read: File name too long"):
        read_inside(folder, "x" * 300)

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.io.owned import ForeignError, read

STRANGER = 61_002
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file with `x` in a folder in a folder."""
    path = tmp_path / "above/folder/file"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    return path


def test_the_user_s_own_regular_file_is_read(place: Path) -> None:
    assert read(place, 1) == b"x"


def test_the_user_s_own_links_are_followed_absolute_relative_and_upwards(place: Path, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to(place)
    (tmp_path / "relative").symlink_to("above/folder")
    (place.parent / "up").symlink_to("../../relative/./file")
    for path in (
        tmp_path / "absolute",
        tmp_path / "relative/file",
        place.parent / "up",
        place.parent / "../folder/file",
    ):
        assert read(path, 1) == b"x"


def test_a_missing_circular_too_large_or_irregular_file_is_an_os_error(place: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(place.parent / "gone", 1)
    with pytest.raises(NotADirectoryError):
        read(place / "below", 1)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels"):
        read(tmp_path / "circle", 1)
    with pytest.raises(IsADirectoryError):
        read(place.parent, 1)
    place.write_text("xx")
    with pytest.raises(OSError, match="larger"):
        read(place, 1)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(OSError, match="not a regular file"):
        read(place, 1)


@pytest.mark.parametrize(
    ("below", "mode", "told"),
    [
        ("above/folder/file", 0o646, "anyone can write to"),
        ("above/folder", 0o777, "anyone can replace the files in"),
        ("above", 0o777, "anyone can replace the files in"),
        ("above/folder", 0o1777, ""),
        ("above/folder/file", 0o664, ""),
        ("above/folder", 0o775, ""),
    ],
)
def test_a_world_writable_file_or_folder_is_refused(
    place: Path, tmp_path: Path, below: str, mode: int, told: str
) -> None:
    (tmp_path / below).chmod(mode)
    if not told:
        assert read(place, 1) == b"x"
        return
    with pytest.raises(ForeignError) as caught:
        read(place, 1)
    assert caught.value.what == f"{told} {tmp_path / below}"
    assert caught.value.fix == f"chmod o-w {tmp_path / below}"


@needs_root
@pytest.mark.parametrize("below", ["above", "above/folder", "above/folder/file"])
def test_every_step_must_belong_to_this_user_root_or_a_trusted_owner(place: Path, tmp_path: Path, below: str) -> None:
    os.chown(tmp_path / below, STRANGER, STRANGER)
    with pytest.raises(ForeignError) as caught:
        read(place, 1)
    assert caught.value.what == f"{tmp_path / below} belongs to another user"
    assert read(place, 1, [STRANGER]) == b"x"


@needs_root
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_of_an_untrusted_user_is_not_followed_to_any_target(place: Path, tmp_path: Path, kind: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(place if kind == "file" else place.parent)
    asked = link if kind == "file" else link / "file"
    assert read(asked, 1) == b"x"
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ForeignError, match="link belongs to another user"):
        read(asked, 1)


@pytest.fixture
def member(tmp_path: Path) -> Iterator[None]:
    """This process as an ordinary user, whose group is the stranger's, too."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    group = os.getegid()
    os.setegid(STRANGER)
    os.seteuid(STRANGER - 1)
    yield
    os.seteuid(0)
    os.setegid(group)


@needs_root
@pytest.mark.parametrize("mode", [0o2770, 0o2750])
def test_a_shared_group_folder_may_belong_to_any_member(
    place: Path, tmp_path: Path, mode: int, request: pytest.FixtureRequest
) -> None:
    os.chown(tmp_path / "above", STRANGER, STRANGER)
    (tmp_path / "above").chmod(mode)
    for path in (place, place.parent):
        os.chown(path, STRANGER - 1, STRANGER)
    request.getfixturevalue("member")
    if mode & 0o020:
        assert read(place, 1) == b"x"
    else:
        with pytest.raises(ForeignError, match="above belongs to another user"):
            read(place, 1)


@needs_root
def test_in_a_world_writable_folder_the_group_makes_no_difference(
    place: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tmp_path.chmod(0o1777)
    os.chown(tmp_path / "above", STRANGER, STRANGER)
    (tmp_path / "above").chmod(0o2770)
    request.getfixturevalue("member")
    with pytest.raises(ForeignError, match="above belongs to another user"):
        read(place, 1)

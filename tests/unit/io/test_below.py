from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, PlaceUnusable
from factory.io.below import Folder, entries, make_way


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_get_the_mode_of_the_first_one_regardless_of_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    before = os.umask(0o777)
    try:
        with Folder.at(tmp_path).share() as root, root.make("a", "b") as made:
            assert made.path == tmp_path / "a/b"
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o2775, 0o2775)


def test_a_folder_that_a_killed_process_left_without_its_mode_is_corrected(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    (tmp_path / "a").mkdir(0o700)
    with Folder.at(tmp_path).share() as root, root.make("a"):
        assert mode(tmp_path / "a") == 0o2775


@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o700), (0o027, 0o750), (0o777, 0o700), (0o000, 0o755)])
def test_a_private_folder_keeps_what_the_umask_takes_away(tmp_path: Path, umask: int, expected: int) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    before = os.umask(umask)
    try:
        with Folder.at(tmp_path).share() as root, root.make("a", "b") as made, root.make("closed"):
            made.write("file", b"", 0o644)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b"), mode(tmp_path / "closed")) == (expected, expected, 0o700)
    assert mode(tmp_path / "a/b/file") == expected & 0o644


@pytest.mark.parametrize(
    ("folder", "shared"), [(0o755, False), (0o775, False), (0o2775, True), (0o1777, True), (0o2755, False)]
)
def test_a_folder_is_shared_if_other_users_may_write_it(tmp_path: Path, folder: int, *, shared: bool) -> None:
    os.chown(tmp_path, -1, os.getuid())  # a private group has the user's number
    tmp_path.chmod(folder)
    with Folder.at(tmp_path).share() as root:
        assert root.shared is shared


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_only_a_single_name_is_accepted_as_an_entry(tmp_path: Path, name: str) -> None:
    with Folder.at(tmp_path) as root:
        for act in (root.below, root.make, root.remove, root.stat, root.touch, root.create, root.update):
            with pytest.raises(ValueError, match="is not the name of an entry"):
                act(name)


@pytest.mark.parametrize("target", [".", "nowhere", "/"])
def test_a_link_in_the_place_of_a_folder_is_refused_with_its_owner(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with Folder.at(tmp_path) as root:
        for act in (root.below, root.make):
            with pytest.raises(IntegrityFailure, match="is a symbolic link, refused") as caught:
                act("link", "more")
            assert f"user id {os.getuid()}" in caught.value.why
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Folder.at(tmp_path) as root:
        with pytest.raises(PlaceUnusable, match="file is in the way"):
            root.make("file")
        with pytest.raises(FileNotFoundError):
            root.below("nothing")


def test_a_path_is_opened_step_by_step_through_own_links_and_missing_folders_are_created(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real/deep/../deep")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    for path in (tmp_path / "absolute/new/folder", tmp_path / "real/../relative/other"):
        with Folder.reach(path) as folder:
            folder.write("file", "text")
        assert (path / "file").read_text() == "text"
    assert mode(tmp_path / "real/deep/new") == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(PlaceUnusable, match="file is in the way"):
        Folder.reach(tmp_path / "file/more")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Folder.reach(tmp_path / "circle")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of somebody else")
def test_a_link_of_another_user_in_a_path_is_refused_with_its_owner(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.chown(tmp_path / "link", 61002, -1, follow_symlinks=False)
    with pytest.raises(IntegrityFailure, match="link is a symbolic link, refused: it belongs to user id 61002"):
        Folder.reach(tmp_path / "link/new")
    assert not list((tmp_path / "real").iterdir())


def test_operations_stay_in_the_open_folder_when_its_path_is_replaced(tmp_path: Path) -> None:
    for name in ("folder", "victim"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text(name)
    with Folder.at(tmp_path) as root, root.below("folder") as folder:
        (tmp_path / "folder").rename(tmp_path / "moved")
        (tmp_path / "folder").symlink_to("victim")
        folder.write("record", "text")
        folder.link("latest", "record")
        folder.second_name("record", "again")
        folder.rename("record", folder, "final")
        folder.touch("old")
        folder.move("old", "older")
        with folder.update("partial") as file:
            file.write(b"bytes")
        with folder.make("below") as below:
            folder.rename("partial", below, "whole")
        folder.remove("older")
        folder.remove("never there")
        assert folder.names() == ["again", "below", "final", "latest"]
        assert (folder.links_to("latest"), folder.links_to("final")) == ("record", None)
        assert folder.read("again", 3) == (b"tex", folder.stat("again").st_mtime)
    assert {path.name for path in (tmp_path / "victim").iterdir()} == {"old"}
    assert (tmp_path / "moved/below/whole").read_bytes() == b"bytes"


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    with Folder.at(tmp_path) as root:
        root.write("file", "old")
        with pytest.raises(ZeroDivisionError), root.create("new") as file:
            file.write(b"%d" % (1 // 0))
        (tmp_path / "folder").mkdir()
        with pytest.raises(PlaceUnusable, match="folder is in the way"):
            root.write("folder", "new")
        assert root.names() == ["file", "folder"]


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    (tmp_path / "link").symlink_to("nowhere")
    for names in (("a", "b", "c"), ("link",), ("a", "b")):
        with contextlib.suppress(IntegrityFailure), Folder.at(tmp_path) as root, root.make(*names):
            pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_path_is_created_with_a_mode_and_without_following_links(tmp_path: Path) -> None:
    make_way(tmp_path / "a/b", 0o700)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o700, 0o700)
    (tmp_path / "a").chmod(0o755)
    make_way(tmp_path / "a", 0o700)
    assert mode(tmp_path / "a") == 0o755, "what is there keeps its mode"
    (tmp_path / "dangling").symlink_to("made")
    with pytest.raises(IntegrityFailure):
        make_way(tmp_path / "dangling/x")
    (tmp_path / "file").touch()
    with pytest.raises(PlaceUnusable, match="in the way"):
        make_way(tmp_path / "file/x")


def test_the_entries_of_a_link_are_not_those_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "link").symlink_to("folder")
    assert entries(tmp_path / "folder") == [tmp_path / "folder/file"]
    assert entries(tmp_path / "link") == entries(tmp_path / "nowhere") == []

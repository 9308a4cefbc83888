from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from factory.errors import PlaceUnusable
from factory.io import ancestors
from factory.io.ancestors import doubt, private_folder, way_to

STRANGER = 41_234
OTHER_GROUP = 41_235
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def why(path: Path) -> str:
    return doubt(path, trusted=lambda user: user in (0, os.geteuid()))


def places(path: Path, below: Path) -> list[str]:
    return [str(step.place.relative_to(below)) for step in way_to(path) if step.place.is_relative_to(below / "x")]


@pytest.fixture
def x(tmp_path: Path) -> Path:
    (tmp_path / "x/real/store").mkdir(parents=True)
    return tmp_path / "x"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("real", ["x", "x/link", "x/real", "x/real/store"]),
        ("../x/real", ["x", "x/link", "x", "x/real", "x/real/store"]),
        ("{x}/real", ["x", "x/link", "x", "x/real", "x/real/store"]),
        ("nowhere", ["x", "x/link"]),
        ("link", ["x", *["x/link"] * 41]),
    ],
)
def test_links_in_a_path_and_their_targets_are_followed(x: Path, target: str, seen: list[str]) -> None:
    (x / "link").symlink_to(target.format(x=x))
    assert places(x / "link/store", x.parent) == seen


def test_a_lookup_ends_at_the_first_missing_component(x: Path) -> None:
    assert places(x / "none/store", x.parent) == ["x"]
    (x / "file").touch()
    assert places(x / "file/store", x.parent) == ["x", "x/file"]
    assert places(x / "real/../real", x.parent) == ["x", "x/real", "x/real"]


def test_a_folder_that_only_its_owner_may_write_to_is_safe(x: Path) -> None:
    assert why(x / "real/store") == ""


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o1777, True), (0o757, False), (0o755, True)])
def test_a_world_writable_folder_is_safe_only_with_the_sticky_bit(x: Path, mode: int, safe: bool) -> None:  # noqa: FBT001
    x.chmod(mode)
    assert (why(x / "real/store") == "") == safe
    assert (f"anyone may write to {x}" in why(x / "real/store")) != safe


@only_root
@pytest.mark.parametrize(("mode", "safe"), [(0o775, False), (0o2775, False), (0o1775, True), (0o755, True)])
def test_a_group_writable_folder_is_safe_only_with_the_sticky_bit(x: Path, mode: int, safe: bool) -> None:  # noqa: FBT001
    os.chown(x, 0, OTHER_GROUP)
    x.chmod(mode)
    assert (why(x / "real/store") == "") == safe


@only_root
def test_the_group_of_the_owner_alone_counts_as_the_owner(x: Path) -> None:
    os.chown(x, STRANGER, STRANGER)
    x.chmod(0o775)
    assert doubt(x / "real", trusted=lambda user: user in (0, STRANGER)) == ""


@only_root
@pytest.mark.parametrize("place", [".", "real", "real/store"])
def test_a_folder_of_an_untrusted_user_is_not_safe_anywhere(x: Path, place: str) -> None:
    os.chown(x / place, STRANGER, -1)
    assert why(x / "real/store") == f"{x / place} belongs to user id {STRANGER}, who is not trusted"


@only_root
def test_a_link_of_an_untrusted_user_counts_in_a_shared_folder(x: Path) -> None:
    (x / "link").symlink_to("real")
    os.chown(x / "link", STRANGER, -1, follow_symlinks=False)
    assert why(x / "link/store") == "", "only who may write to its folder can replace a link"
    x.chmod(0o1777)
    assert f"user id {STRANGER}, who may have made it: others can write to {x}" in why(x / "link/store")


def test_a_private_folder_is_created_and_reused(x: Path) -> None:
    assert private_folder(x / "mine") == private_folder(x / "mine") == x / "mine"
    assert stat.S_IMODE((x / "mine").stat().st_mode) == 0o700
    with pytest.raises(PlaceUnusable, match=r"there is no folder .*none"):
        private_folder(x / "none/mine")
    private_folder(x / "none/mine", parents=True)
    assert stat.S_IMODE((x / "none").stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file", "above"])
def test_a_folder_that_others_could_use_is_not_private(x: Path, kind: str) -> None:
    if kind == "open":
        (x / "mine").mkdir()
        (x / "mine").chmod(0o770)
    elif kind == "link":
        (x / "mine").symlink_to("real")
    elif kind == "file":
        (x / "mine").touch()
    else:
        x.chmod(0o777)
    with pytest.raises(PlaceUnusable, match=r"is not safe to use|is in the way"):
        private_folder(x / "mine")


@only_root
def test_no_private_folder_is_created_below_an_untrusted_folder(x: Path) -> None:
    os.chown(x, STRANGER, -1)
    with pytest.raises(PlaceUnusable, match="is not safe to use"):
        private_folder(x / "mine")
    assert not (x / "mine").exists()


def test_a_user_without_an_account_is_named_by_id() -> None:
    assert (ancestors.name_of(0), ancestors.name_of(STRANGER)) == ("user root", f"user id {STRANGER}")

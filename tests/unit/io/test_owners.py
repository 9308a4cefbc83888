from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, PlaceUnusable
from factory.io import files, modes, private
from factory.io.ancestors import private_folder, safe_folder
from factory.io.below import Folder
from factory.io.owners import is_own, mapped_owner
from factory.io.rights import whose
from tests.odd_file_system import mounted, reason_against

SOMEBODY = 12345  # a user id that this machine does not know
needs_mount = pytest.mark.skipif(bool(reason_against()), reason=reason_against())


def test_on_a_usual_file_system_files_belong_to_whoever_creates_them(tmp_path: Path) -> None:
    assert mapped_owner(tmp_path) is None
    assert is_own(os.geteuid(), tmp_path)
    assert not is_own(SOMEBODY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_created_no_mapping_is_found(tmp_path: Path) -> None:
    assert mapped_owner(tmp_path / "missing") is None
    assert mapped_owner(Path("/proc/self")) is None


@needs_mount
def test_mapped_owners_are_recognized_by_a_new_file(tmp_path: Path) -> None:
    with mounted(tmp_path, owner=SOMEBODY) as mount:
        assert mapped_owner(mount) == SOMEBODY
        with Folder.at(mount) as folder:
            assert mapped_owner(mount, dir_fd=folder.descriptor) == SOMEBODY
        assert is_own(SOMEBODY, mount)
        assert not is_own(SOMEBODY + 1, mount)
        assert list(mount.iterdir()) == []


@needs_mount
def test_a_private_file_is_this_users_where_owners_are_mapped(tmp_path: Path) -> None:
    with mounted(tmp_path, owner=SOMEBODY) as mount:
        path = mount / "partial"
        with private.open_for_update(path) as file:
            file.write(b"begun")
        path.chmod(0o400)
        with private.open_for_update(path) as file:
            assert file.read() == b"begun"
        os.link(path, mount / "second")
        with pytest.raises(IntegrityFailure, match="refused"), private.open_for_update(path):
            pass


@needs_mount
def test_a_folder_that_must_be_private_is_refused_with_the_reason_where_owners_are_mapped(tmp_path: Path) -> None:
    with mounted(tmp_path, owner=SOMEBODY) as mount:
        (mount / "file").touch()
        assert whose(mount / "file") == f"it belongs to user id {SOMEBODY}, to whom its file system maps you"
        for find in (private_folder, lambda path: safe_folder(path, "name another one")):
            with pytest.raises(PlaceUnusable) as caught:
                find(mount / "mine")
            assert caught.value.why == f"its file system maps owners: your files belong to user id {SOMEBODY} there"


@needs_mount
def test_a_file_system_without_modes_keeps_files_and_refuses_secrets(tmp_path: Path) -> None:
    with mounted(tmp_path, without=["chmod"]) as mount:
        files.atomic_write(mount / "file", "x", 0o644)
        assert stat.S_IMODE((mount / "file").stat().st_mode) == 0o755, "as the file system decides"
        with pytest.raises(PlaceUnusable, match="no permission to write"):
            files.atomic_write(mount / "secret", "x", 0o600)
        assert [path.name for path in mount.iterdir()] == ["file"]


@needs_mount
def test_a_file_system_that_reports_no_size_is_not_full(tmp_path: Path) -> None:
    with mounted(tmp_path, without=["statfs"]) as mount:
        assert files.free_space(mount) is None
        assert files.readable_space(mount) == "free space unknown"
        files.require_space(mount, 1 << 60, "to try")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_umask_is_read_without_changing_it(umask: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert modes.umask() == umask
        monkeypatch.setattr(modes, "_STATUS", tmp_path / "old kernel")
        assert modes.umask() == umask
        assert modes.umask() == umask
    finally:
        os.umask(before)

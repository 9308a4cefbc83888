from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.errors import FactoryError, IntegrityFailure, NoRoom, NotPermitted, PlaceUnusable
from factory.io import files, modes, plain, private, trees
from factory.oci.digest import Digest

BLOCK = files.BLOCK


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def as_ordinary_user(body: Callable[[], None]) -> None:
    """Run the body in a child that is not root; what it raises fails the test."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(files.NOBODY)
                os.setuid(files.NOBODY)
            body()
        except BaseException:  # noqa: BLE001 - whatever it is, the parent tells
            os.write(writer, traceback.format_exc().encode()[-4000:])
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, told


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user may write: pytest's own are closed to others."""
    path = Path("/var/tmp") / f"singfactory-test.{os.getpid()}"
    path.mkdir()
    path.chmod(0o777)
    yield path
    assert trees.remove_tree(path)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_500_000, "1.5 MB"),
        (433_000_000, "433 MB"),
        (6_000_000_000, "6.0 GB"),
        (2 * 10**12, "2.0 TB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert files.readable_size(size) == text


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077, 0o777])
def test_the_umask_closes_new_files_to_others_and_never_to_their_owner(tmp_path: Path, umask: int) -> None:
    left = ~(umask & 0o077)
    written = tmp_path / "built"
    written.write_text("x")
    written.chmod(0o600)
    before = os.umask(umask)
    try:
        folder = files.make_folder(tmp_path / "a" / "b")
        files.atomic_write(folder / "file", "x")
        files.atomic_write(folder / "private", "x", 0o600)
        with files.create(folder / "made", 0o640):
            pass
        with files.create(folder / "exact", 0o666, exact=True):
            pass
        plain.copy_file(folder / "made", folder / "copy", 0o444)
        exact = files.make_folder(tmp_path / "exact" / "deep", 0o2775, exact=True)
        files.take_over(written, os.geteuid())
        assert modes.umask() == umask
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (folder, folder.parent)] == [0o755 & left] * 2
    assert [mode_of(path) for path in (exact, exact.parent)] == [0o2775] * 2
    assert mode_of(written) == 0o644 & left
    assert {path.name: mode_of(path) for path in folder.iterdir()} == {
        "file": 0o644 & left,
        "private": 0o600,
        "made": 0o640 & left,
        "exact": 0o666,
        "copy": 0o444 & left,
    }


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o700)
    files.make_folder(tmp_path / "old" / "new")
    assert mode_of(tmp_path / "old") == 0o700


@pytest.mark.parametrize("below", ["", "child", "child/grandchild"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlaceUnusable, match="is in the way"):
        files.make_folder(tmp_path / "file" / below)


def test_a_dangling_link_in_the_way_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlaceUnusable):
        files.make_folder(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_an_atomic_write_replaces_the_whole_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.atomic_write(target, "longer content")
    files.atomic_write(target, b"short")
    assert target.read_bytes() == b"short"
    assert names_in(tmp_path) == {"file"}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_atomic_write_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    target = tmp_path / "file"
    files.atomic_write(target, "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    owner = Path if broken == "replace" else os
    monkeypatch.setattr(owner, broken, fail)
    with pytest.raises(OSError, match="the disk is dying"):
        files.atomic_write(target, "new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == {"file"}


def test_a_file_and_its_folder_are_synced_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    files.atomic_write(tmp_path / "file", "x")
    assert steps == ["file", "rename", "folder"]


@pytest.mark.parametrize(("code", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders_is_accepted_and_an_error_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    passes: bool,  # noqa: FBT001
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if passes:
        files.sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="Input/output"):
            files.sync_folder(tmp_path)


def test_create_refuses_an_existing_file_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "made by the attacker")
    for name in ("file", "link", "dangling"):
        with pytest.raises(FileExistsError), files.create(tmp_path / name) as file:
            file.write(b"x")
    assert (tmp_path / "file").read_text() == "mine"
    assert names_in(tmp_path) == {"file", "link", "dangling"}


def test_create_removes_its_file_when_the_block_raises(tmp_path: Path) -> None:
    def interrupted(error: BaseException) -> None:
        with files.create(tmp_path / "file") as file:
            file.write(b"x" * 100)
            raise error

    for error in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            interrupted(error)
        assert names_in(tmp_path) == set()


def append(path: Path, content: bytes) -> None:
    with private.open_for_update(path) as file:
        file.seek(0, os.SEEK_END)
        file.write(content)


def test_a_file_opened_for_update_is_private_and_keeps_what_it_has(tmp_path: Path) -> None:
    append(tmp_path / "file", b"one")
    append(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"onetwo"
    assert mode_of(tmp_path / "file") == 0o600


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "pipe"])
def test_anything_planted_in_place_of_a_private_file_is_refused_with_its_owner(tmp_path: Path, kind: str) -> None:
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_text("precious")
    if kind == "symbolic link":
        place.symlink_to(victim)
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    elif kind == "hard link":
        place.hardlink_to(victim)
    else:
        os.mkfifo(place)
    before = mode_of(victim)
    with pytest.raises(IntegrityFailure, match="refused") as caught:
        append(place, b"overwritten")
    assert caught.value.why == f"it belongs to user id {os.getuid()}"
    assert victim.read_text() == "precious"
    assert mode_of(victim) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant a file of another user")
@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_file_of_another_user_is_refused_whether_it_can_be_written_or_not(open_folder: Path, mode: int) -> None:
    place = open_folder / "partial"
    place.write_text("planted")
    place.chmod(mode)

    def body() -> None:
        with pytest.raises(IntegrityFailure) as caught:
            append(place, b"x")
        assert caught.value.why == "it belongs to user id 0"

    as_ordinary_user(body)
    assert place.read_text() == "planted"
    files.give_to_nobody(place)
    with pytest.raises(IntegrityFailure, match="refused"):
        append(place, b"x")


def test_a_file_that_a_dead_run_left_read_only_is_continued(open_folder: Path) -> None:
    place = open_folder / "partial"

    def body() -> None:
        append(place, b"one")
        place.chmod(0o444)
        append(place, b"two")
        assert place.read_bytes() == b"onetwo"

    as_ordinary_user(body)


def test_a_file_may_be_renamed_over_a_planted_link_without_following_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "final").symlink_to(tmp_path / "victim")
    (tmp_path / "new").write_text("new")
    files.rename_into_place(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "final").is_symlink()
    assert (tmp_path / "final").read_text() == "new"


def test_a_link_moves_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "link"
    files.link_atomically(link, "one")
    files.link_atomically(link, "../two")
    assert str(link.readlink()) == "../two"
    assert names_in(tmp_path) == {"link"}


def test_a_temporary_name_is_new_hidden_and_gone_afterwards(tmp_path: Path) -> None:
    with files.temporary_in(tmp_path, "x") as one, files.temporary_in(tmp_path, "x") as two:
        assert one != two
        assert one.name.startswith(".x.")
        one.write_text("1")
    assert names_in(tmp_path) == set()


def test_a_temporary_folder_is_private_and_goes_with_read_only_trees_and_links_in_it(open_folder: Path) -> None:
    def body() -> None:
        outside = open_folder / "outside"
        outside.mkdir(mode=0o755)
        (outside / "kept").write_text("x")
        outside.chmod(0o555)
        with files.temporary_folder(open_folder, "work") as folder:
            assert mode_of(folder) == 0o700
            deep = folder / "a" / "b"
            deep.mkdir(parents=True)
            (deep / "file").write_text("x")
            (folder / "link").symlink_to(outside)
            for path, mode in ((deep / "file", 0o400), (deep, 0o000), (deep.parent, 0o555)):
                path.chmod(mode)
        assert names_in(open_folder) == {"outside"}
        assert (outside / "kept").read_text() == "x"
        assert mode_of(outside) == 0o555

    as_ordinary_user(body)


def test_a_temporary_folder_goes_when_its_block_raises(tmp_path: Path) -> None:
    def interrupted() -> None:
        with files.temporary_folder(tmp_path, "work") as folder:
            (folder / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names_in(tmp_path) == set()


def test_removing_a_tree_says_whether_it_is_gone_and_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o500)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert not trees.remove_tree(tmp_path / "link")
    assert not trees.remove_tree(tmp_path / "dangling")
    assert mode_of(tmp_path / "target") == 0o500
    assert trees.remove_tree(tmp_path / "target")
    assert trees.remove_tree(tmp_path / "never there")


@pytest.mark.slow
def test_a_tree_that_is_deeper_than_any_path_is_removed_with_its_read_only_folders(tmp_path: Path) -> None:
    chain = "/".join("d" * 900)
    for name in ("1", "2", "3", "4"):  # 3,600 deep: more than a path, open files or calls can be
        (tmp_path / name / chain).mkdir(parents=True)
        (tmp_path / name / chain / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir(mode=0o500)
    for name, below in (("1", "2"), ("2", "3"), ("3", "4")):
        (tmp_path / name).chmod(0o700)
        (tmp_path / name).rename(tmp_path / below / chain / "x")
    (tmp_path / "4" / "d").chmod(0o500)
    assert trees.remove_tree(tmp_path / "4")
    assert mode_of(tmp_path / "kept") == 0o500


def test_too_little_space_is_reported_in_advance_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(NoRoom) as caught:
        files.require_space(tmp_path / "not" / "yet", 10**18, "to pull the image")
    what, why, fix = caught.value.lines()
    assert what == f"not enough space in {tmp_path}/not/yet to pull the image"
    assert why.startswith("1000000.0 TB needed, ")
    assert why.endswith(" free")
    assert fix == "free some space, or name a folder on a larger disk"
    files.require_space(tmp_path, 1, "to pull the image")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_and_a_quota_are_reported_with_the_needed_space(tmp_path: Path, code: int) -> None:
    with pytest.raises(NoRoom) as caught, files.explained(tmp_path / "blob", 5_000_000):
        raise OSError(code, os.strerror(code))
    assert caught.value.what == f"no space left to write {tmp_path}/blob"
    assert caught.value.why.startswith(os.strerror(code))
    assert caught.value.why.endswith("; 5.0 MB more needed")
    assert "singfactory store gc" in caught.value.fix


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_missing_permissions_are_reported_with_the_path(tmp_path: Path, code: int) -> None:
    with pytest.raises(NotPermitted, match="no permission to write") as caught, files.explained(tmp_path):
        raise OSError(code, os.strerror(code))
    assert caught.value.why == os.strerror(code)


def test_other_system_errors_pass_unchanged(tmp_path: Path) -> None:
    error = OSError(errno.EIO, "broken")
    assert files.storage_error(error, tmp_path) is None
    with pytest.raises(OSError, match="broken") as caught, files.explained(tmp_path):
        raise error
    assert caught.value is error


def in_limited_process(body: Callable[[], None]) -> None:
    """Run the body in a child that may write files of 64 KiB only: a limit that is there for every user."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        body()

    as_ordinary_user(limited)


def test_a_write_that_meets_a_real_limit_leaves_nothing_and_keeps_the_old_content(open_folder: Path) -> None:
    def body() -> None:
        files.atomic_write(open_folder / "file", "old")
        with pytest.raises(NoRoom):
            files.atomic_write(open_folder / "file", b"x" * 100_000)
        assert (open_folder / "file").read_text() == "old"
        assert names_in(open_folder) == {"file"}

    in_limited_process(body)


def test_a_copy_that_meets_a_real_limit_leaves_nothing(open_folder: Path) -> None:
    source = open_folder / "source"
    source.write_bytes(b"x" * 200_000)
    source.chmod(0o644)

    def body() -> None:
        with pytest.raises(NoRoom):
            plain.copy_file(source, open_folder / "copy")
        assert names_in(open_folder) == {"source"}

    in_limited_process(body)


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from factory.errors import NoRoom
from factory.io import files
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
files.atomic_write(disk / "file", "old")
try:
    files.atomic_write(disk / "file", b"x" * 3_000_000)
except NoRoom as error:
    print(error.why)
assert (disk / "file").read_text() == "old"
assert [path.name for path in disk.iterdir()] == ["file"]
"""


def test_a_disk_that_is_really_full_keeps_the_old_content_and_no_leftover(tmp_path: Path) -> None:
    # A user namespace makes the mount possible without root; the mount goes with the process.
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount namespace, so no file system can be filled")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", FULL_DISK, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No space left on device, ")


def test_a_folder_that_may_not_be_written_is_named(open_folder: Path) -> None:
    def body() -> None:
        folder = open_folder / "closed"
        folder.mkdir(mode=0o555)
        with pytest.raises(NotPermitted) as caught:
            files.atomic_write(folder / "file", "x")
        assert caught.value.why == "Permission denied"
        assert str(folder) in caught.value.what
        folder.chmod(0o000)
        with pytest.raises(NotPermitted, match="no permission to write"):
            files.make_folder(folder / "a" / "b")

    as_ordinary_user(body)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("in_kernel", [True, False, None])
def test_a_copy_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, in_kernel: bool | None) -> None:  # noqa: FBT001
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    real, calls = os.copy_file_range, 0

    def sometimes(source: int, target: int, count: int, at: int) -> int:
        nonlocal calls
        calls += 1
        if in_kernel is None and calls == 1:
            return real(source, target, min(count, 1000), at)
        raise OSError(errno.EXDEV, "not between these file systems")

    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", sometimes)
    plain.copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_a_copy_does_not_overwrite_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "copy").write_text("old")
    with pytest.raises(FileExistsError):
        plain.copy_file(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "old"


def test_a_file_is_read_and_hashed_from_any_offset(tmp_path: Path) -> None:
    content = os.urandom(2 * BLOCK + 5)
    (tmp_path / "file").write_bytes(content)
    assert b"".join(plain.blocks_of(tmp_path / "file")) == content
    assert b"".join(plain.blocks_of(tmp_path / "file", BLOCK + 1)) == content[BLOCK + 1 :]
    assert list(plain.blocks_of(tmp_path / "file", 10 * BLOCK)) == []
    assert plain.digest_of(tmp_path / "file") == (Digest.of(content), len(content))


def test_a_planted_file_that_disappears_is_still_an_error(tmp_path: Path) -> None:
    error = private.planted(tmp_path / "gone")
    assert isinstance(error, FactoryError)
    assert error.why == "it has been removed since"


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    found, there = files.free_space(tmp_path / "a" / "b" / "c"), files.free_space(tmp_path)
    assert found is not None
    assert there is not None
    assert abs(found - there) < 100_000_000
    assert found > 0

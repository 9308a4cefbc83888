"""Many processes and several users share a store: one downloads, all succeed, and planted files do no harm."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.io import locks
from tests.integration.pull.cluster import NAME, User, ended, stop, until
from tests.integration.pull.conftest import Start, Upstream
from tests.integration.pull.test_kills import noted, watched
from tests.servers import Faulty

NewUser = Callable[..., User]

MANY = 12
AS_USER = Path(__file__).with_name("as_user.py")
STRANGER = 61002  # an unused user id
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")


def modes(user: User, *, folders: bool) -> set[str]:
    found = (path for path in user.store.rglob("*") if path.is_dir() == folders and not path.is_symlink())
    return {f"{stat.S_IMODE(path.stat().st_mode):o}" for path in found}


# Locks


def test_no_lock_of_the_file_system_is_asked_for(upstream: Upstream, new_user: NewUser) -> None:
    user, record = watched(new_user(), "--without-flock")
    user.pull()
    assert user.arrived(upstream.small) == upstream.small.size
    assert [line for line in noted(record) if line.get("step", "").startswith("fcntl")] == []


def write_lock(path: Path, **changed: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = {
        "host": socket.gethostname(),
        "pid": 1,
        "user": 0,
        "token": "abc",
        "processes": locks.processes(),
        **changed,
    }
    path.write_text(json.dumps(holder))


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_of_two_pulls_that_find_the_lock_of_a_dead_process_one_downloads(
    upstream: Upstream, start: Start, new_user: NewUser, host: str
) -> None:
    faulty = start({"path": upstream.small.blobs, "rate": 6_000_000})
    user = new_user(faulty)
    if host == "here":
        write_lock(user.lock(upstream.small), pid=ended_process())
        driven = user
    else:
        write_lock(user.lock(upstream.small), host="another-host")
        driven, _ = watched(user, "--set", "factory.io.locks.STALE=1.5", "--set", "factory.io.locks.REFRESH=0.2")
    processes = [driven.start("pull", NAME, "--json") for _ in range(2)]
    told = [ended(process).json() for process in processes]
    assert sorted(one["transferred"] for one in told) == [0, upstream.small.size]
    assert faulty.served(upstream.small.blobs) == upstream.small.size
    assert list((user.store / "locks").iterdir()) == []


def test_who_waits_too_long_for_a_lock_is_told_who_holds_it(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    faulty = start({"path": upstream.small.blobs, "rate": 1_000_000})
    user = new_user(faulty)
    first = user.start("pull", NAME)
    until(user.lock(upstream.small).exists, first)
    impatient, _ = watched(user, "--set", "factory.store.store.LOCK_TIMEOUT=0.5")
    done = impatient.run("pull", NAME)
    holder = f"process {first.pid} of user {os.getuid()} on {socket.gethostname()}"
    assert done.code == 9, done
    assert done.err.splitlines()[0] == f"waiting for {holder}, which is doing the same work"
    assert done.err.splitlines()[1] == f"singfactory: gave up waiting for {holder}"
    assert ended(first).code == 0


def test_a_pull_that_slept_while_another_one_took_its_place_does_not_touch_what_that_one_finished(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 10_000_000, "times": 5})
    user = new_user(faulty)
    sleeping = user.start("pull", "large")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 5_000_000, sleeping)
    sleeping.send_signal(signal.SIGSTOP)
    driven, _ = watched(user, "--set", "factory.io.locks.STALE=1")
    assert driven.run("pull", "large").code == 0
    assert user.arrived(image) == image.size
    sleeping.send_signal(signal.SIGCONT)
    done = ended(sleeping)
    assert user.arrived(image) == image.size, "no byte of it is another"
    assert done.code in (0, 4), done


# Many at once


MODES = {  # of the store, umasks, and modes of folders and files in it
    "shared": (0o2775, (0o077, 0o000), ({"2775"}, {"444", "644"})),
    "own": (0o755, (0o022, 0o022), ({"755"}, {"444", "644"})),
    "private": (0o755, (0o077, 0o077), ({"700"}, {"400", "600"})),
}


@pytest.mark.parametrize("kind", MODES)
def test_many_pulls_at_once_make_one_download_and_one_copy_with_the_right_modes(
    upstream: Upstream, start: Start, new_user: NewUser, kind: str
) -> None:
    root, umasks, expected = MODES[kind]
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 8_000_000})
    user = new_user(faulty)
    user.store.mkdir()
    user.store.chmod(root)
    processes = [user.start("pull", "large", "--json", umask=umask) for umask in umasks * (MANY // 2)]
    done = [ended(process) for process in processes]
    assert [one.code for one in done] == [0] * MANY, done
    transferred = sorted(one.json()["transferred"] for one in done)
    assert transferred == [0] * (MANY - 1) + [image.size]
    assert image.size <= faulty.served(image.blobs) <= 1.1 * image.size
    assert any("waiting for process" in one.err for one in done)
    assert user.arrived(image) == image.size
    assert [path for path in user.store.rglob("*") if path.lstat().st_size == image.size] == [user.blob(image)]
    assert (modes(user, folders=True), modes(user, folders=False)) == expected
    assert list((user.store / "partial").iterdir()) == list((user.store / "locks").iterdir()) == []


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="singfactory-shared-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def two_of_one_group() -> tuple[int, int, int]:
    """Return two accounts of this system with the same primary group, and that group."""
    members: dict[int, list[int]] = {}
    for account in pwd.getpwall():
        members.setdefault(account.pw_gid, []).extend([account.pw_uid] if account.pw_uid else [])
    found = next(((users[0], users[1], group) for group, users in sorted(members.items()) if len(users) > 1), None)
    if found is None:
        pytest.skip("no two accounts of this system have the same primary group")
    return found


def two_users(folder: Path, mode: int, new_user: NewUser, faulty: Faulty) -> list[User]:
    """Return two users of one store, which belongs to root and their group."""
    *numbers, group = two_of_one_group()
    store = folder / "store"
    store.mkdir()
    os.chown(store, 0, group)
    store.chmod(mode)
    users = []
    for number in numbers:
        home = folder / f"home{number}"
        home.mkdir()
        os.chown(home, number, group)
        program = (sys.executable, str(AS_USER), str(number), str(group), "--")
        users.append(new_user(faulty, home=home, store=store, program=program))
    return users


@needs_root
def test_two_users_of_one_group_share_a_store_with_one_download(
    shared: Path, upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 8_000_000})
    users = two_users(shared, 0o2775, new_user, faulty)
    processes = [user.start("pull", "large", "--json", umask=0o077) for user in users]
    told = [ended(process) for process in processes]
    assert [done.code for done in told] == [0, 0], told
    assert sorted(done.json()["transferred"] for done in told) == [0, image.size]
    assert faulty.served(image.blobs) <= 1.1 * image.size
    assert users[0].blob(image).stat().st_uid != os.getuid()
    assert modes(users[0], folders=True) == {"2775"}
    assert modes(users[0], folders=False) == {"444", "644"}
    paths = {user.run("path", "large").out for user in users}
    assert paths == {f"{users[0].blob(image)}\n"}


@needs_root
def test_the_lock_of_another_user_who_died_makes_no_pull_hang_where_only_owners_may_remove_files(
    shared: Path, upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 10_000_000, "times": 1})
    first, second = two_users(shared, 0o1777, new_user, faulty)
    died = first.start("pull", "large")
    until(first.lock(image).exists, died)
    stop(died)
    waiting = second.start("pull", "large")
    try:
        _, err = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
        waiting.communicate()
    assert waiting.returncode == 0 or f"process {died.pid}" in err, err


# Planted files


def planters() -> list[int]:
    return [os.getuid(), STRANGER] if os.geteuid() == 0 else [os.getuid()]


@pytest.mark.parametrize("owner", planters())
@pytest.mark.parametrize(("place", "kind"), [("partial", "link"), ("partial", "hard link"), ("lock", "link")])
def test_what_was_planted_where_a_pull_works_is_refused_with_its_owner_and_harms_nobody(
    upstream: Upstream, start: Start, new_user: NewUser, tmp_path: Path, *, place: str, kind: str, owner: int
) -> None:
    faulty = start()
    user = new_user(faulty)
    path = {"partial": user.partial, "lock": user.lock}[place](upstream.small)
    path.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o640)
    if kind == "link":
        path.symlink_to(victim)
        os.chown(path, owner, -1, follow_symlinks=False)
    else:
        os.chown(victim, owner, -1)
        path.hardlink_to(victim)
    done = user.run("pull", NAME)
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o640)
    assert done.code == 5, done
    assert {"partial": "refused", "lock": "not a regular file"}[place] in done.err
    assert f"it belongs to user id {owner}" in done.err
    assert not user.blob(upstream.small).exists()
    assert faulty.requests("GET", upstream.small.blobs) == []
    assert os.path.lexists(path), "it is left as evidence"
    path.unlink()
    user.pull()


def test_a_hard_link_in_the_place_of_a_lock_is_the_lock_of_nobody_who_lives(
    upstream: Upstream, new_user: NewUser, tmp_path: Path
) -> None:
    user = new_user()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    user.lock(upstream.small).parent.mkdir(parents=True)
    user.lock(upstream.small).hardlink_to(victim)
    driven, _ = watched(user, "--set", "factory.io.locks.STALE=0.5")
    done = driven.run("pull", NAME)
    assert (done.code, "waiting for process 0 of user -1 on an unknown host" in done.err) == (0, True), done
    assert (victim.read_text(), victim.stat().st_nlink) == ("precious", 1)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link"])
def test_what_was_planted_in_the_place_of_an_image_is_replaced_and_not_written_through(
    upstream: Upstream, new_user: NewUser, tmp_path: Path, kind: str
) -> None:
    user = new_user()
    path, victim = user.blob(upstream.small), tmp_path / "victim"
    path.parent.mkdir(parents=True)
    victim.write_text("precious")
    if kind == "hard link":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    assert user.pull()["transferred"] == upstream.small.size
    assert not path.is_symlink()
    assert user.arrived(upstream.small) == upstream.small.size
    assert victim.read_text() == "precious"
    assert victim.stat().st_nlink == 1
    assert not (tmp_path / "nowhere").exists()

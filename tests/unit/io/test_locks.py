from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.errors import Busy, IntegrityFailure
from factory.io import locks
from factory.io.below import Folder
from factory.io.progress import Silent

ROOT = Path(__file__).resolve().parents[3]
COUNT = """
import sys
from pathlib import Path
from factory.io.locks import lock
from factory.io.progress import Silent
counter = Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with lock(Path(sys.argv[1]), 60, Silent()):
        value = int(counter.read_text())
        counter.write_text(str(value + 1))
"""
HOLD = """
import sys, time
from pathlib import Path
from factory.io.locks import lock
from factory.io.progress import Silent
with lock(Path(sys.argv[1]), 10, Silent()):
    print("held", flush=True)
    time.sleep(60)
"""


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "x.lock"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life come and count as missing in fractions of a second."""
    monkeypatch.setattr(locks, "REFRESH", 0.05)
    monkeypatch.setattr(locks, "STALE", 0.4)
    monkeypatch.setattr(locks, "_POLL", 0.02)


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def write_lock(path: Path, **changed: object) -> None:
    path.parent.mkdir(exist_ok=True)
    value = {"host": "another-host", "pid": 1, "user": 1000, "token": "abc", "processes": locks.processes()}
    path.write_text(json.dumps(value | changed))


def unused_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.mark.slow
def test_many_processes_enter_one_after_the_other_and_none_gets_lost(tmp_path: Path, path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(path), str(counter), "20"]
    processes = [subprocess.Popen(command) for _ in range(8)]
    assert [process.wait(120) for process in processes] == [0] * 8
    assert counter.read_text() == "160"
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_threads_of_one_process_exclude_each_other_too(path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with locks.lock(path, 30, Silent()):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_names_its_holder_while_it_is_held_and_leaves_nothing(path: Path) -> None:
    before = threading.active_count()
    with locks.lock(path, 1, Silent()):
        value = json.loads(path.read_text())
        assert (value["host"], value["pid"], value["user"]) == (socket.gethostname(), os.getpid(), os.getuid())
        assert path.stat().st_mode & 0o777 == 0o644
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert list(path.parent.iterdir()) == []
    assert threading.active_count() == before


def test_a_lock_is_released_when_the_work_fails(path: Path) -> None:
    def interrupted() -> None:
        with locks.lock(path, 1, Silent()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(path: Path) -> None:
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        started = time.monotonic()
        with locks.lock(path, 5, Silent()):
            assert time.monotonic() - started < 1
    assert not path.exists()


@pytest.mark.slow
def test_a_waiter_gets_one_notice_and_a_timeout_error_that_name_the_holder(path: Path) -> None:
    notes = Notes()
    with holder(path) as process:
        name = f"process {process.pid} of user {os.getuid()} on {socket.gethostname()}"
        with pytest.raises(Busy) as caught, locks.lock(path, 0.7, notes):
            pass
    assert notes.notes == [f"waiting for {name}, which is doing the same work"]
    assert caught.value.lines() == (
        f"gave up waiting for {name}",
        f"it has held {path} for more than 1 s",
        "try again later, or end that process if it hangs",
    )


def test_a_waiter_gets_the_lock_when_the_holder_releases_it(path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with locks.lock(path, 10, Silent()):
            entered.set()

    with locks.lock(path, 1, Silent()):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.3)
    thread.join(5)
    assert entered.is_set()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pid", [1, 10**9])
def test_a_lock_of_a_silent_holder_on_another_host_is_taken_over(path: Path, pid: int) -> None:
    write_lock(path, pid=pid)
    started = time.monotonic()
    with locks.lock(path, 10, Silent()):
        assert time.monotonic() - started >= 0.4
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_lock_of_an_active_holder_on_another_host_is_not_taken_over(path: Path) -> None:
    write_lock(path)
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with (
            pytest.raises(Busy, match="process 1 of user 1000 on another-host"),
            locks.lock(path, 1.2, Silent()),
        ):
            pass
    finally:
        stop.set()
        thread.join()
    assert json.loads(path.read_text())["host"] == "another-host"


@pytest.mark.usefixtures("quick")
def test_a_holder_updates_its_lock_while_it_works(path: Path) -> None:
    with locks.lock(path, 1, Silent()):
        first = path.stat().st_mtime_ns
        time.sleep(0.3)
        assert path.stat().st_mtime_ns > first


@pytest.mark.usefixtures("quick")
def test_a_process_that_lost_its_lock_leaves_the_new_holder_s_alone(path: Path) -> None:
    with locks.lock(path, 1, Silent()):
        path.unlink()
        write_lock(path)
        time.sleep(0.15)
    assert json.loads(path.read_text())["token"] == "abc"


@pytest.mark.usefixtures("quick")
def test_an_error_of_the_file_system_ends_neither_the_updates_nor_the_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failing = Folder.read, threading.Event()

    def sometimes(folder: Folder, name: str, limit: int) -> tuple[bytes, float]:
        if failing.is_set():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)
        return read(folder, name, limit)

    monkeypatch.setattr(Folder, "read", sometimes)
    with locks.lock(path, 1, Silent()):
        failing.set()
        time.sleep(0.2)
        failing.clear()
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert path.stat().st_mtime > 0, "it is updated again"
        failing.set()
    assert path.exists(), "left behind, and taken over by the next process"


@pytest.mark.usefixtures("quick")
def test_a_lock_that_another_user_is_just_creating_in_place_is_no_planted_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Folder.read

    def private_when_empty(folder: Folder, name: str, limit: int) -> tuple[bytes, float]:
        if folder.stat(name).st_size == 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return read(folder, name, limit)

    monkeypatch.setattr(Folder, "read", private_when_empty)
    path.parent.mkdir()
    path.touch()
    with locks.lock(path, 5, Silent()):
        pass
    path.touch()
    os.utime(path, (0, 0))
    with pytest.raises(IntegrityFailure), locks.lock(path, 5, Silent()):
        pass


@pytest.mark.usefixtures("quick")
def test_a_clock_that_is_wrong_makes_no_difference(path: Path) -> None:
    for stamp in (0, 2**33):
        write_lock(path)
        os.utime(path, (stamp, stamp))
        with pytest.raises(Busy), locks.lock(path, 0.15, Silent()):
            pass
        assert path.exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_what_was_planted_in_place_of_a_lock_is_refused_without_waiting(tmp_path: Path, path: Path, kind: str) -> None:
    path.parent.mkdir()
    (tmp_path / "victim").write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("victim" if kind == "link" else "nowhere"))
    with pytest.raises(IntegrityFailure, match="not a regular file") as caught, locks.lock(path, 5, Silent()):
        pass
    assert caught.value.why == f"it belongs to user id {os.getuid()}"
    assert (tmp_path / "victim").read_text() == "precious"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "{}",
        "null",
        "[" * 4096,
        '{"host": 1}',
        '{"host": "x", "pid": 1e999, "user": 1, "token": ""}',
        '{"host": "x", "pid": "y", "user": 1, "token": ""}',
        '{"host": "\\ud800", "pid": 1, "user": 1, "token": ""}',
        '{"host": [[], []], "pid": 1, "user": 1, "token": ""}',
        '{"host": "y", "host": "z", "pid": 1, "user": 1, "token": ""}',
        '{"host": "y", "pid": NaN, "user": 1, "token": ""}',
        '{"host": "y", "pid": "1", "user": 1, "token": ""}',
        '{"host": "y", "pid": true, "user": 1, "token": ""}',
        '{"host": "x", "pid": ' + "9" * 300 + ', "user": 1, "token": ""}',
        "\x00\xff" * 100,
        "x" * 1_000_000,
    ],
)
def test_an_invalid_lock_is_waited_for(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(Busy, match=r"on an unknown host|on x") as told, locks.lock(path, 0.1, Silent()):
        pass
    assert len(str(told.value).encode()) < 600


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", ["", "not json"])
def test_an_invalid_lock_is_taken_over_when_it_is_stale(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with locks.lock(path, 10, Silent()):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("pid", [2**31, 10**19])
def test_an_impossible_process_id_is_a_dead_process(path: Path, pid: int) -> None:
    write_lock(path, host=socket.gethostname(), pid=pid)
    with locks.lock(path, 1, Silent()):
        pass


def test_a_dead_process_on_this_host_does_not_hold_a_lock(path: Path) -> None:
    write_lock(path, host=socket.gethostname(), pid=unused_pid())
    with locks.lock(path, 1, Silent()):
        pass


def test_several_waiters_for_a_dead_holder_s_lock_enter_one_at_a_time(tmp_path: Path, path: Path) -> None:
    write_lock(path, host=socket.gethostname(), pid=unused_pid())
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(path), str(counter), "5"]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "20"


def test_a_repeated_answer_of_nfs_does_not_lock_the_holder_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_claim_that_it_was_there(source: str, target: str, **named: Any) -> None:
        link(source, target, **named)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link_and_claim_that_it_was_there)
    with locks.lock(path, 0.5, Silent()):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK"])
def test_locks_hold_where_there_are_no_hard_links(tmp_path: Path, number: str) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = [sys.executable, str(ROOT / "tests/refused_calls.py"), number, "link", sys.executable, "-c", COUNT]
    arguments = [str(tmp_path / "lock"), str(counter), "20"]
    workers = [subprocess.Popen([*program, *arguments], cwd=ROOT) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert counter.read_text() == "80"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter"]


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_taken_over_where_there_are_no_hard_links(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "tests/refused_calls.py"), "EPERM", "link", sys.executable, "-c"]
    with subprocess.Popen([*program, HOLD, str(tmp_path / "lock")], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    (tmp_path / "counter").write_text("0")
    arguments = [str(tmp_path / "lock"), str(tmp_path / "counter"), "1"]
    assert subprocess.run([*program, COUNT, *arguments], cwd=ROOT, timeout=60, check=False).returncode == 0
    assert (tmp_path / "counter").read_text() == "1"


def test_a_lock_that_was_never_written_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "STALE", 0.5)
    (tmp_path / "lock").touch()
    with locks.lock(tmp_path / "lock", 10, Silent()) as held:
        assert held.doubtful

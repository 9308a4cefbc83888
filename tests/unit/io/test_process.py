from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.errors import FactoryError, NotFound
from factory.io import process

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def __call__(self, block: bytes) -> None:
        self.data += block


def shell(script: str, timeout: float | None = 20, **options: object) -> tuple[process.Finished, bytes]:
    out = Collected()
    done = process.run(["sh", "-c", script], on_output=out, env=ENV, timeout=timeout, **options)  # type: ignore[arg-type]
    return done, out.data


def lives(pid: int) -> bool:
    """Whether the process still runs; one that has ended and was not waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(pid)


def pid_in(path: Path) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        time.sleep(0.02)
    pytest.fail(f"nobody wrote {path}")


@pytest.fixture
def no_leftover(tmp_path: Path) -> Iterator[Path]:
    """A file for the process id of a grandchild, which must be gone afterwards."""
    path = tmp_path / "pid"
    yield path
    assert ends(pid_in(path))


def test_both_streams_are_merged_in_order() -> None:
    done, data = shell("echo one; echo two >&2; echo three")
    assert data == b"one\ntwo\nthree\n"
    assert (done.status, done.timed_out) == (0, False)


def test_standard_error_can_be_kept_apart() -> None:
    out, err = Collected(), Collected()
    done = process.run(["sh", "-c", "echo o; echo e >&2; exit 3"], on_output=out, on_error_output=err, env=ENV)
    assert (out.data, err.data, done.status) == (b"o\n", b"e\n", 3)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", -9)])
def test_the_exit_status_is_the_program_s_own(script: str, status: int) -> None:
    assert shell(script)[0].status == status


def test_the_program_gets_exactly_the_given_arguments_environment_and_folder(tmp_path: Path) -> None:
    out = Collected()
    program = "import os, sys; print(sys.argv[1:], os.environ.get('X'), os.environ.get('HOME'), os.getcwd())"
    odd = ["-rf", "--", "$(id)", "a b", "", "new\nline", "*"]
    process.run([sys.executable, "-c", program, *odd], on_output=out, env=ENV | {"X": "y"}, cwd=tmp_path)
    assert out.data.decode() == f"{odd} y None {tmp_path}\n"


def test_standard_input_is_empty() -> None:
    assert shell("cat; echo end")[1] == b"end\n"


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./no-such", "/tmp", "{file}"])
def test_a_missing_program_is_reported_with_the_next_step(tmp_path: Path, program: str) -> None:
    (tmp_path / "file").write_text("no program")
    program = program.format(file=tmp_path / "file")
    for start in (
        lambda: process.run([program], on_output=Collected(), env=ENV),
        lambda: process.output_of([program], env=ENV),
    ):
        with pytest.raises(NotFound) as caught:
            start()
        assert caught.value.what == f"the program {program} was not found"
        assert "singfactory doctor" in caught.value.fix


def test_a_program_is_searched_in_the_path_of_its_own_environment(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert process.output_of(["tool"], env={"PATH": str(tmp_path)})[1] == b"found\n"
    with pytest.raises(NotFound):
        process.output_of(["tool"], env=ENV)
    out = Collected()
    process.run(["./tool"], on_output=out, env=ENV, cwd=tmp_path)
    assert out.data == b"found\n"


def test_a_timeout_ends_the_whole_group(no_leftover: Path) -> None:
    started = time.monotonic()
    done, data = shell(f"sleep 60 & echo $! > {no_leftover}; echo before; wait", timeout=0.5)
    assert (done.timed_out, data) == (True, b"before\n")
    assert done.status == -signal.SIGTERM
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_group_that_ignores_sigterm_is_killed(no_leftover: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    done, _ = shell(f"trap '' TERM; echo $$ > {no_leftover}; while :; do sleep 0.1; done", timeout=0.5)
    assert (done.timed_out, done.status) == (True, -signal.SIGKILL)


def test_a_program_that_ends_in_time_is_not_timed_out() -> None:
    done, _ = shell("sleep 0.2", timeout=10)
    assert (done.timed_out, done.status) == (False, 0)
    assert 0.2 <= done.seconds < 5


UNREAPED = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us, and we reap none of them
from factory.io import process
started = time.monotonic()
done = process.run(["sh", "-c", "sleep 60 & exit 3"], on_output=print, env=dict(os.environ))
print(done.status, time.monotonic() - started)
"""


def test_a_group_of_zombies_is_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", UNREAPED], check=True, capture_output=True, text=True, timeout=60)
    status, seconds = done.stdout.split()
    assert status == "3"
    assert float(seconds) < 3


def test_ctrl_c_ends_the_group_and_passes_through(no_leftover: Path) -> None:
    def interrupt() -> None:
        pid_in(no_leftover)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        shell(f"sleep 60 & echo $! > {no_leftover}; wait")
    thread.join()


def test_a_receiver_that_raises_ends_the_group_and_passes_through(no_leftover: Path) -> None:
    def refuse(_: bytes) -> None:
        raise FactoryError("enough")

    script = f"sleep 60 & echo $! > {no_leftover}; echo now; wait"
    with pytest.raises(FactoryError, match="enough"):
        process.run(["sh", "-c", script], on_output=refuse, env=ENV)


def test_a_process_left_in_the_background_is_not_waited_for_and_does_not_stay(no_leftover: Path) -> None:
    started = time.monotonic()
    done, data = shell(f"sleep 60 & echo $! > {no_leftover}; echo done")
    assert (done.status, data) == (0, b"done\n")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_background_process_that_writes_forever_does_not_delay_us(no_leftover: Path) -> None:
    blocks = 0

    def slow(_: bytes) -> None:
        nonlocal blocks
        blocks += 1
        time.sleep(0.01)  # the pipe is full again before we look

    script = f"yes & echo $! > {no_leftover}; exit 4"
    done = process.run(["sh", "-c", script], on_output=slow, env=ENV, timeout=8)
    assert (done.status, done.timed_out) == (4, False)
    assert blocks < 120, "a pipe holds no more than that"


def test_a_process_that_left_the_group_does_not_delay_us(no_leftover: Path) -> None:
    started = time.monotonic()
    script = f"setsid sh -c 'echo $$ > {no_leftover}; exec sleep 5' & while [ ! -s {no_leftover} ]; do sleep 0.05; done"
    done, _ = shell(script)
    assert done.status == 0
    assert time.monotonic() - started < 4
    os.kill(pid_in(no_leftover), signal.SIGKILL)


def test_all_of_a_large_output_arrives_and_memory_does_not_grow_with_it() -> None:
    count = 0

    def keep_nothing(block: bytes) -> None:
        nonlocal count
        count += len(block)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = process.run(["head", "-c", "300000000", "/dev/zero"], on_output=keep_nothing, env=ENV)
    assert (done.status, count) == (0, 300_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_what_is_written_just_before_the_end_is_not_lost() -> None:
    for _ in range(5):
        assert len(shell("head -c 60000 /dev/zero; exec >&-")[1]) == 60_000
        assert len(shell("head -c 200000 /dev/zero")[1]) == 200_000


def test_a_program_that_closes_its_output_early_is_still_waited_for() -> None:
    done, _ = shell("exec >&- 2>&-; sleep 0.4; exit 5")
    assert done.status == 5
    assert done.seconds >= 0.4


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent_even_by_sigkill(no_leftover: Path, end: signal.Signals) -> None:
    program = textwrap.dedent(
        f"""
        import os
        from factory.io import process
        command = ["sh", "-c", "echo $$ > {no_leftover}; exec sleep 60"]
        process.run(command, on_output=print, env=dict(os.environ))
        """
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        child = pid_in(no_leftover)
        assert lives(child)
        parent.send_signal(end)
        parent.wait(10)


def test_a_short_program_gets_input_and_gives_status_and_both_streams() -> None:
    script = "cat; echo problem >&2; exit 2"
    assert process.output_of(["sh", "-c", script], env=ENV, stdin=b"in") == (2, b"in", b"problem\n")
    assert process.output_of(["true"], env=ENV, stdin=b"x" * 1_000_000) == (0, b"", b"")


def test_a_short_program_that_takes_too_long_is_ended_and_reported(no_leftover: Path) -> None:
    with pytest.raises(FactoryError, match="sh did not answer within 0 s"):
        process.output_of(["sh", "-c", f"echo $$ > {no_leftover}; exec sleep 60"], env=ENV, timeout=0.4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can map every id")
def test_an_identity_mapping_keeps_ids_and_gives_every_capability() -> None:
    script = "id -u; head -1 /proc/self/uid_map; grep CapEff /proc/self/status"
    status, out, err = process.output_of(["sh", "-c", script], env=ENV, mapped="identity")
    if status == 126 and b"unshare" in err:
        pytest.skip("this machine allows no user namespaces")
    user, ids, capabilities = out.decode().splitlines()
    assert user == "0"
    assert ids.split() == ["0", "0", "65536"]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert int(capabilities.split()[1], 16) == (1 << (last + 1)) - 1


def test_a_program_of_the_working_folder_is_not_started_by_its_bare_name(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "own").chmod(0o755)
    with pytest.raises(NotFound):
        process.run(["own"], on_output=Collected(), env={"PATH": f".:{os.environ['PATH']}"}, cwd=tmp_path)
    out = Collected()
    process.run(["sh", "-c", "own; ./own"], on_output=out, env={"PATH": f":{os.environ['PATH']}"}, cwd=tmp_path)
    assert out.data.splitlines()[-1] == b"ran"
    assert out.data.count(b"ran") == 1

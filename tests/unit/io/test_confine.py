from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from factory.io import launch, process
from factory.io.process import Sandbox

ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
KIND = "shifted" if os.geteuid() == 0 else "single"
_LANDLOCK = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)  # landlock_create_ruleset(2): the version
_LINKS = tuple(
    (path, str(path.readlink())) for path in map(Path, ("/bin", "/sbin", "/lib", "/lib64")) if path.is_symlink()
)
_PLAIN = tuple(
    path
    for path in map(Path, ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64"))
    if path.is_dir() and path not in dict(_LINKS)
)


def sandbox(*writable: Path, reads: tuple[Path, ...] = ()) -> Sandbox:
    return Sandbox(KIND, (*_PLAIN, *reads), writable, _LINKS, (Path("/tmp"),))


def said(script: str, *writable: Path, reads: tuple[Path, ...] = ()) -> str:
    box = sandbox(*writable, reads=reads)
    status, out, err = process.output_of(["/bin/sh", "-c", script], env=ENV, sandbox=box)
    if b"sandbox: unshare" in err:
        pytest.skip(f"no user namespaces here: {err.decode()}")
    assert status == 0, err.decode()
    return out.decode()


def test_a_program_sees_only_its_own_processes_and_the_given_files(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("x")
    reads = (tmp_path / "given",)
    assert said("set -- /proc/[0-9]*; echo $#", reads=reads) == "2\n"
    assert said("ls / | grep -x -e root -e home -e srv -e work; :", reads=reads) == ""
    assert said(f"cat {tmp_path}/given; ls -a {tmp_path}", reads=reads) == "x.\n..\ngiven\n"


def test_read_only_files_stay_read_only_for_root_inside(tmp_path: Path) -> None:
    script = f"""
        mount -o remount,rw,bind {tmp_path} || echo refused
        umount -l {tmp_path} || echo refused
        echo x > {tmp_path}/file || echo refused
    """
    assert said(f"{{ {script} }} 2>/dev/null", reads=(tmp_path,)) == "refused\n" * 3
    assert list(tmp_path.iterdir()) == []


def test_standard_output_and_error_can_be_opened_by_their_names() -> None:
    assert said("echo x > /dev/stdout; echo y > /dev/stderr; echo z > /proc/self/fd/1") == "x\nz\n"


def test_writable_folders_can_be_written_to(tmp_path: Path) -> None:
    if KIND == "shifted":
        os.chown(tmp_path, launch.shifted_range()[0], -1)
    said(f"echo x > {tmp_path}/file", tmp_path)
    assert (tmp_path / "file").read_text() == "x\n"
    assert (tmp_path / "file").stat().st_uid != 0 or os.geteuid() != 0


def test_a_folder_below_private_ones_is_visible(tmp_path: Path) -> None:
    (tmp_path / "private/given").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    assert said(f"ls -d {tmp_path}/private/given", reads=(tmp_path / "private/given",)).endswith("given\n")


def test_abstract_sockets_are_unreachable_if_the_kernel_supports_it(tmp_path: Path) -> None:
    if _LANDLOCK < 6:
        pytest.skip(f"this kernel's Landlock is of version {_LANDLOCK}, 6 is needed")
    client = tmp_path / "client.py"
    client.write_text("import socket; socket.socket(socket.AF_UNIX).connect('\\0singfactory-test')")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0singfactory-test")
        listening.listen()
        assert said("/usr/bin/python3 -V")
        status, _, err = process.output_of(
            ["/usr/bin/python3", "-I", str(client)], env=ENV, sandbox=sandbox(reads=(client,))
        )
    assert (status, b"PermissionError" in err) == (1, True)


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_the_exit_status_is_the_program_s(script: str, status: int) -> None:
    assert process.output_of(["/bin/sh", "-c", script], env=ENV, sandbox=sandbox())[0] == status


def test_a_missing_program_is_reported_in_one_line() -> None:
    status, _, err = process.output_of(["/usr/bin/env", "/no/such"], env=ENV, sandbox=sandbox())
    assert (status, len(err.splitlines())) == (127, 1)


def test_a_missing_mount_source_is_reported_in_one_line_and_nothing_runs(tmp_path: Path) -> None:
    box = sandbox(reads=(tmp_path / "none",))
    status, out, err = process.output_of(["/bin/sh", "-c", "echo ran"], env=ENV, sandbox=box)
    assert (status, out, len(err.splitlines())) == (126, b"", 1)
    assert b"Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_inside_outlives_the_one_outside(tmp_path: Path, kind: signal.Signals) -> None:
    if KIND == "shifted":
        os.chown(tmp_path, launch.shifted_range()[0], -1)
    script = f"setsid sh -c 'while :; do echo x >> {tmp_path}/alive; sleep 0.1; done' & sleep 60"
    started = subprocess.Popen(process.command(["/bin/sh", "-c", script], sandbox=sandbox(tmp_path)), env=ENV)
    alive = tmp_path / "alive"
    deadline = time.monotonic() + 20
    while not alive.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive.exists()
    started.send_signal(kind)
    started.wait(20)
    time.sleep(0.5)
    before = alive.stat().st_size
    time.sleep(0.5)
    assert alive.stat().st_size == before


@pytest.mark.slow
def test_a_timeout_ends_everything_that_a_program_started() -> None:
    done = process.run(
        ["/bin/sh", "-c", "setsid sleep 61 & sleep 61"], on_output=print, env=ENV, timeout=1, sandbox=sandbox()
    )
    assert done.timed_out
    assert done.seconds < 20
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert b"sleep\x0061\x00" not in running


@pytest.mark.parametrize(
    ("users", "groups", "found"),
    [
        ("0 0 4294967295", "0 0 4294967295", (0x7000_0000, 65536)),
        ("0 0 65536", "0 0 65536", (1, 65535)),
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", (1, 65536)),
        ("0 0 200000", "0 0 200000", (134464, 65536)),
        ("0 1000 1", "0 1000 1", (1, 0)),
        ("0 0 4294967295", "0 0 65536", (0x7000_0000, 0)),
    ],
)
def test_root_builds_run_under_unused_ids(tmp_path: Path, users: str, groups: str, found: tuple[int, int]) -> None:
    (tmp_path / "uid_map").write_text(users + "\n")
    (tmp_path / "gid_map").write_text(groups + "\n")
    assert launch.shifted_range(tmp_path) == found

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from factory.io import launch
from factory.io.launch import subordinate_range

SCRIPT = [sys.executable, "-I", launch.__file__]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SCRIPT, *arguments], check=False, capture_output=True, text=True, timeout=20)


def test_it_execs_the_program_with_its_arguments() -> None:
    done = start("--", "sh", "-c", 'echo "$@"; exit 6', "x", "--", "-rf", "--map")
    assert (done.returncode, done.stdout, done.stderr) == (6, "-- -rf --map\n", "")


def test_a_program_that_cannot_run_ends_as_in_a_shell() -> None:
    done = start("--", "/no/such/program")
    assert (done.returncode, done.stderr) == (126, "/no/such/program: No such file or directory\n")


def test_it_does_not_start_for_a_parent_that_is_gone() -> None:
    done = start("--die-with-parent", "1" if os.getpid() != 1 else "2", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (126, "")


def test_it_starts_for_the_parent_that_is_there() -> None:
    assert start("--die-with-parent", str(os.getpid()), "--", "echo", "started").stdout == "started\n"


def test_a_mapping_that_fails_is_one_line_and_not_a_traceback() -> None:
    done = subprocess.run(
        [*SCRIPT, "--map", "subuid", "--", "echo", "started"],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": "/nowhere"},  # no newuidmap there
    )
    assert (done.returncode, done.stdout) == (126, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_it_imports_nothing_of_the_package() -> None:
    # `-I` leaves the package's folder out: were it needed, this would fail.
    text = Path(launch.__file__).read_text()
    assert "from factory" not in text
    assert start("--", "true").returncode == 0


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("me:100000:65536\n", (0, 0)),
        ("{name}:100000:65536\n", (100000, 65536)),
        ("{uid}:200000:1000\n", (200000, 1000)),
        ("other:1:2\n{name}:3:4\n{name}:5:6\n", (3, 4)),
        ("# a comment\n\n{name}:100000:65536", (100000, 65536)),
        ("{name}:x:y\n", (0, 0)),
        ("{name}\n", (0, 0)),
        ("{name}:1\n", (0, 0)),
        ("{name}:-5:10\n", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_id_range_of_a_user_is_read_by_name_or_number(tmp_path: Path, content: str, found: tuple[int, int]) -> None:
    path = tmp_path / "subuid"
    uid = os.getuid()
    path.write_text(content.format(name=pwd.getpwuid(uid).pw_name, uid=uid))
    assert subordinate_range(path, uid) == found


def test_a_user_without_a_name_or_a_machine_without_the_file_has_no_range(tmp_path: Path) -> None:
    assert subordinate_range(tmp_path / "none", os.getuid()) == (0, 0)
    path = tmp_path / "subuid"
    path.write_text("4123456:7:8\n")
    assert subordinate_range(path, 4123456) == (7, 8)

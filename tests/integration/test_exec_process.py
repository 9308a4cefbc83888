"""`singfactory exec` becomes the engine: which processes start and stay, and what passes through."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory_project import ROOT, Project

# Runs at the start of each Python of a virtual environment, also with -I; notes it, and every process that it starts.
NOTER = """\
import os, sys
def note(*words):
    with open(os.environ["NOTES"], "a") as file:
        print(os.getpid(), *words, file=file)
STARTS = ("subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.forkpty")
note("python", sys.executable)
sys.addaudithook(lambda event, found: note(event, str(found[0]) if found else "") if event in STARTS else None)
"""
ANCESTORS = """
at=$$
while [ "$at" != {stop} ]; do
    read -r name < /proc/$at/comm; echo "$name"
    while read -r key value; do [ "$key" = PPid: ] && above=$value; done < /proc/$at/status
    at=$above
done
"""


@pytest.fixture(scope="module")
def pulled(new_project: Callable[[], Project]) -> Project:
    """A project whose image is in the store."""
    project = new_project()
    project.recipe("tool")
    project.ok("make", "tool")
    project.ok("pull", "tool")
    return project


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with an environment of its own, which notes its starts."""
    folder = tmp_path_factory.mktemp("noted")
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib*/python*/site-packages"))
    (packages / "noter.py").write_text(NOTER)
    own = [str(ROOT), sysconfig.get_path("purelib"), "import noter"]
    (packages / "all.pth").write_text("\n".join(own) + "\n")
    return folder / "bin/python"


def command(*words: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "factory.cli", *words]


def started(noted: Path, project: Project, notes: Path, *words: str, **env: str) -> list[str]:
    """What starts when a command runs: `python`, or the event of Python and the program."""
    notes.unlink(missing_ok=True)
    subprocess.run(
        command(*words, python=str(noted)),
        env={**project.env, "NOTES": str(notes), **env},
        cwd=project.folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return [line.split(" ", 1)[1].strip() for line in notes.read_text().splitlines()]


@pytest.mark.parametrize("place", ["store", "node"])
def test_one_python_starts_and_no_process_before_the_engine(
    pulled: Project, noted: Path, tmp_path: Path, place: str
) -> None:
    env = {"SLURM_TMPDIR": str(tmp_path)} if place == "node" else {}
    words = ("exec", "tool", "true")
    started(noted, pulled, tmp_path / "notes", *words, **env)  # stages, and asks the engine for its version
    found = started(noted, pulled, tmp_path / "notes", *words, **env)
    engine = f"os.exec {pulled.env['SINGFACTORY_ENGINE']}"
    # A root that lacks a capability forks a child that makes its user namespace, and is gone when the engine starts.
    assert [one for one in found if one != "os.fork"] == [f"python {noted}", engine]
    assert found.count("os.fork") <= (os.geteuid() == 0)


def test_the_engine_is_asked_again_when_its_file_has_changed(pulled: Project, noted: Path, tmp_path: Path) -> None:
    known = tmp_path / "cache/singfactory/programs"
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    asked = [
        sum(one.startswith("subprocess.Popen") for one in started(noted, pulled, tmp_path / "notes", *words, **env))
        for words in (("exec", "tool", "true"), ("exec", "tool", "true"))
    ]
    assert asked == [1, 0]
    (file,) = known.iterdir()
    assert json.loads(file.read_text())["says"].startswith(("apptainer", "singularity"))
    file.rename(known / "1-2-3-4.json")  # as if the engine were another file
    assert any("Popen" in one for one in started(noted, pulled, tmp_path / "notes", "exec", "tool", "true", **env))


def test_no_python_is_left_above_the_program(pulled: Project) -> None:
    script = ANCESTORS.format(stop=os.getpid())
    done = subprocess.run(
        command("exec", "tool", "/bin/sh", "-c", script),
        env=pulled.env,
        cwd=pulled.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    names = done.stdout.split("\n")[:-1]
    assert names
    assert [name for name in names if "python" in name.lower() or "singfactory" in name.lower()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_process_reaches_the_program_and_its_exit_code_comes_back(
    pulled: Project, number: signal.Signals
) -> None:
    script = f"trap 'echo got; exit 7' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        command("exec", "tool", "/bin/sh", "-c", script),
        env=pulled.env,
        cwd=pulled.folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert (process.communicate(timeout=60)[0], process.returncode) == ("got\n", 7)


def test_a_killed_program_ends_like_one(pulled: Project) -> None:
    done = subprocess.run(
        command("exec", "tool", "/bin/sh", "-c", "kill -9 $$"), env=pulled.env, cwd=pulled.folder, check=False
    )
    assert done.returncode in (137, -9)


def test_standard_input_passes_through(pulled: Project) -> None:
    words = command("exec", "tool", "cat")
    done = subprocess.run(
        words, env=pulled.env, cwd=pulled.folder, input=b"\0\xff\n" * 70000, capture_output=True, check=True
    )
    assert done.stdout == b"\0\xff\n" * 70000


def test_a_terminal_is_one_inside(pulled: Project) -> None:
    outer, inner = pty.openpty()
    script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal"
    words = command("exec", "tool", "/bin/sh", "-c", script)
    with subprocess.Popen(
        words, env=pulled.env, cwd=pulled.folder, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
    ) as process:
        os.close(inner)
        assert process.wait(60) == 0
    assert b"terminal" in os.read(outer, 1000)
    os.close(outer)

"""What people see while commands work: a live line on a terminal, a line a minute in a log."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.factory_project import DEFINITION, TEST, Project

SLOW = DEFINITION.replace("echo made > /made", "sleep 4; echo made > /made")
SLOW_TEST = TEST.replace("cat /made", "sleep 3; cat /made")
IN_A_LOG = """
import sys
from factory.cli import main, terminal
terminal._LOGGED, terminal._TICK = 1.0, 0.2
progress = terminal.Terminal.__init__
progress.__kwdefaults__["tick"] = 0.2
sys.exit(main(sys.argv[1:]))
"""


def drawn(project: Project, *arguments: str) -> list[str]:
    """Every state of the live line, and all other lines, of a command that runs on a terminal."""
    screen, terminal = pty.openpty()
    command: Sequence[str] = [sys.executable, "-m", "factory.cli", *arguments]
    env = {**project.env, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        command, cwd=project.folder, env=env, stdin=terminal, stdout=subprocess.DEVNULL, stderr=terminal
    ) as started:
        os.close(terminal)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while block := os.read(screen, 4096):
                written += block
    os.close(screen)
    assert started.returncode == 0, written
    return [line.strip() for line in re.split(r"\r\x1b\[K|\r?\n", written.decode()) if line.strip()]


def seen(pattern: str, lines: Sequence[str]) -> set[str]:
    """The different lines that match."""
    return {line for line in lines if re.fullmatch(pattern, line)}


def test_a_terminal_shows_each_step_its_time_and_its_last_line_of_output(project: Project, tmp_path: Path) -> None:
    project.recipe("tool", definition=SLOW, more=SLOW_TEST)
    first = drawn(project, "make")
    assert len(seen(r"build tool  \d+ s  \+ sleep 4", first)) >= 3, "\n".join(first)
    assert len(seen(r"test tool  \d+ s  test made", first)) >= 2, "\n".join(first)
    for step in ("read the catalog", "examine the image", "index image.sif", "hash image.sif", "push "):
        assert any(line.startswith(step) for line in first), step
    again = drawn(project, "make", "--force")
    assert seen(r"build tool  \d+ s \(last time \d+ s\)  \+ sleep 4", again), "\n".join(again)
    assert seen(r"test tool  \d+ s \(last time \d+ s\)  test made", again), "\n".join(again)
    assert any(line.startswith("pull tool  ") for line in drawn(project, "pull", "tool"))
    assert any(line.startswith("verify  ") for line in drawn(project, "store", "verify"))
    assert any(line.startswith("stage tool  ") for line in drawn(project, "stage", "tool", "--to", str(tmp_path)))
    assert any(line.startswith("look through the store") for line in drawn(project, "store", "gc"))


def test_a_log_shows_a_line_now_and_then_although_the_build_is_silent(project: Project) -> None:
    project.recipe("tool", definition=SLOW)
    command = [sys.executable, "-c", IN_A_LOG, "make"]
    done = subprocess.run(
        command, cwd=project.folder, env=dict(project.env), capture_output=True, text=True, check=True, timeout=120
    )
    assert 2 <= len(seen(r"build tool  \d+ s  \+ sleep 4", done.stderr.splitlines())) <= 6, done.stderr
    assert "\r" not in done.stderr

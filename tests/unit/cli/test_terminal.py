from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.cli import terminal
from factory.cli.terminal import Terminal, emit, printable

HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\x08\x9b31mb\N{RIGHT-TO-LEFT OVERRIDE}c\x00\n"


class Screen(io.StringIO):
    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(terminal, "time", found)
    return found


def screen(monkeypatch: pytest.MonkeyPatch, *, tty: bool, term: str = "xterm") -> Screen:
    found = Screen(tty=tty)
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "60")
    return found


@given(st.text())
def test_printed_text_is_printable_and_as_long_as_the_input(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(letter.isprintable() or letter == "\t" for letter in shown)
    assert printable(shown) == shown


def test_only_the_beginning_of_very_long_text_is_printed() -> None:
    shown = printable("x" * 1_000_000)
    assert len(shown) < 10_000
    assert "more characters" in shown


@given(st.text(st.characters()))
def test_json_keeps_any_text_and_contains_no_control_characters(text: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        emit({"text": text + HOSTILE})
    assert json.loads(out.getvalue()) == {"text": text + HOSTILE}
    assert out.getvalue().replace("\n", "").isprintable()


def test_only_terminal_prints_except_for_our_own_paths_and_documents() -> None:
    """What is not said through ``say`` or ``tell`` has no text of a stranger, or is escaped where it is made."""
    exact = {
        "job.py": 1,  # a script with the user's own words, byte by byte
        "plan.py": 2,  # JSON in ASCII; a workflow command
        "report.py": 1,  # a document that factory.github.texts has escaped
    }
    folder = Path(terminal.__file__).parent
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        count = sum(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
        if count and path != Path(terminal.__file__):
            found[path.name] = count
    assert found == exact


def test_ordinary_text_of_any_language_is_printed_as_it_is() -> None:
    text = "naïve café, 日本語, Ελληνικά, 🙂: 5 % of 3.2 GB\tok"
    assert printable(text) == text


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("tty", [False, True])
def test_control_characters_from_outside_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    tty: bool,  # noqa: FBT001
    verbose: bool,  # noqa: FBT001
) -> None:
    seen = screen(monkeypatch, tty=tty)
    progress = Terminal(quiet=False, verbose=verbose, tick=None)
    progress.begin("build")
    clock.now += 1
    progress.line(HOSTILE)
    progress.note(HOSTILE)
    progress.end()
    drawn = seen.getvalue().replace("\r\x1b[K", "").replace("\n", "")
    assert drawn.isprintable()
    assert "\r\x1b[K" not in seen.getvalue() or tty


def test_a_terminal_shows_one_live_line(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("pull", 2_000_000)
    clock.now += 1
    progress.advance(500_000)
    progress.advance(500_000)  # too soon to be drawn again
    clock.now += 1
    progress.advance(0)
    progress.note("take care")
    progress.end()
    assert seen.getvalue().split("\r\x1b[K") == [
        "",
        "pull  0 % of 2.0 MB, 0 B/s",
        "pull  25 % of 2.0 MB, 500 kB/s, 3 s left",
        "pull  50 % of 2.0 MB, 500 kB/s, 2 s left",
        "take care\n",
        "pull  50 % of 2.0 MB, 500 kB/s, 2 s left",
        "",
    ]


def test_the_speed_is_that_of_the_last_ten_seconds(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("pull", 100_000_000)
    progress.advance(50_000_000)  # an earlier pull left these
    for _ in range(20):
        clock.now += 1
        progress.advance(1_000_000)
    assert seen.getvalue().endswith("pull  70 % of 100 MB, 1.0 MB/s, 30 s left")


def test_a_step_inside_another_one_hides_it_until_it_ends(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("build x", expected=200)
    progress.begin("waiting for process 7")
    clock.now += 61
    progress.end()
    progress.end()
    progress.end()  # once too often
    assert seen.getvalue().split("\r\x1b[K") == [
        "",
        "build x  0 s (last time 3 min 20 s)",
        "waiting for process 7  0 s",
        "",
        "build x  1 min 01 s (last time 3 min 20 s)",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;32mgreen\x1b[0m and \x1b]0;title\x07plain", "green and plain"),
        ("10 %\r20 %\r30 %\r\n", "30 %"),
        ("CC\tmain.o", "CC main.o"),
    ],
)
def test_the_live_line_shows_output_as_a_terminal_would(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, line: str, shown: str
) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("build")
    clock.now += 1
    progress.line(line)
    assert seen.getvalue().endswith(f"build  1 s  {shown}")


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_a_drawn_line_never_wraps(monkeypatch: pytest.MonkeyPatch, clock: Clock, letter: str) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("build")
    clock.now += 1
    progress.line(letter * 500)
    columns = [sum(2 if letter == "漢" else 1 for letter in part) for part in seen.getvalue().split("\r\x1b[K")]
    assert max(columns) in (58, 59)


@pytest.mark.parametrize(("tty", "term"), [(False, "xterm"), (True, "dumb"), (True, "")])
def test_a_log_gets_a_line_a_minute_and_nothing_is_redrawn(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    tty: bool,  # noqa: FBT001
    term: str,
) -> None:
    seen = screen(monkeypatch, tty=tty, term=term)
    if not term:
        monkeypatch.delenv("TERM")
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("pull", 100_000_000)
    for _ in range(120):
        clock.now += 1
        progress.advance(500_000)
    progress.end()
    assert seen.getvalue().splitlines() == [
        "pull  30 % of 100 MB, 500 kB/s, 2 min 20 s left",
        "pull  60 % of 100 MB, 500 kB/s, 1 min 20 s left",
    ]


def test_verbose_shows_each_line_whole_and_draws_nothing(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=True, tick=None)
    progress.begin("build")
    clock.now += 1
    progress.line("gcc\t" + "x" * 200)
    progress.end()
    assert seen.getvalue() == "gcc\t" + "x" * 200 + "\n"


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=False)
    progress = Terminal(quiet=True, verbose=False, tick=None)
    progress.begin("pull", 100)
    clock.now += 100
    progress.advance(50)
    progress.line("x")
    progress.note("y")
    progress.end()
    assert seen.getvalue() == ""


def test_a_transfer_of_zero_or_too_many_bytes_is_drawn(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = screen(monkeypatch, tty=True)
    progress = Terminal(quiet=False, verbose=False, tick=None)
    progress.begin("pull", 0)
    clock.now += 1
    progress.advance(5)
    progress.advance(-5)
    assert "100 % of 0 B" in seen.getvalue()


def test_any_value_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"name": HOSTILE, "größe": 1}]
    emit(value)
    out, err = capsys.readouterr()
    assert json.loads(out) == value
    assert "\x1b" not in out
    assert err == ""


STEP = """
import sys, time
from factory.cli import terminal
from factory.cli.terminal import Terminal
terminal._LOGGED, tick, seconds = (float(word) for word in sys.argv[1:])
progress = Terminal(quiet=False, verbose=False, tick=tick)
progress.begin("build x", expected=200)
progress.line("compiling")
time.sleep(seconds)
progress.end()
"""


def on_a_terminal(arguments: list[str]) -> str:
    """All that a program writes to a terminal."""
    reader, terminal_of_child = pty.openpty()
    env = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(arguments, stderr=terminal_of_child, env=env):
        os.close(terminal_of_child)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while block := os.read(reader, 4096):
                written += block
    os.close(reader)
    return written.decode()


@pytest.mark.slow
def test_a_terminal_shows_the_time_pass_although_nothing_is_reported() -> None:
    seen = on_a_terminal([sys.executable, "-c", STEP, "60", "1", "3.5"])
    drawn = [line.strip() for line in seen.split("\r\x1b[K")]
    for seconds in (0, 1, 2, 3):
        assert any(line.startswith(f"build x  {seconds} s (last time 3 min 20 s)") for line in drawn), drawn
    assert drawn[-2].endswith("compiling")
    assert drawn[-1] == ""


@pytest.mark.slow
def test_a_log_gets_its_lines_although_nothing_is_reported() -> None:
    script = [sys.executable, "-c", STEP, "1", "0.2", "2.5"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 2
    assert set(done.stderr.splitlines()) <= {
        f"build x  {seconds} s (last time 3 min 20 s)  compiling" for seconds in (1, 2, 3)
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to limit the processes of another user")
def test_without_another_thread_the_line_is_drawn_only_when_something_is_reported() -> None:
    limited = ["prlimit", "--nproc=1:1", "setpriv", "--reuid=64999", "--clear-groups", sys.executable]
    done = subprocess.run([*limited, "-c", STEP, "0", "0.1", "0.3"], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "build x  0 s (last time 3 min 20 s)",
        "build x  0 s (last time 3 min 20 s)  compiling",
    ]

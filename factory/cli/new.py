"""`singfactory new`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.errors import UsageError
from factory.recipes.scaffold import scaffold


@dataclass(frozen=True)
class NewOptions(CommonOptions):
    """Options of `singfactory new`."""

    name: str
    base: str | None
    project: Path | None
    update: bool
    python: str
    extra: list[str]
    group: list[str]
    include_code: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="name of the recipe, such as pytorch-2.1")
    parser.add_argument("--from", dest="base", metavar="IMAGE", help="Docker image to start from")
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="install what a Python or conda project locks, as in uv.lock or requirements.txt (docs/projects.md)",
    )
    parser.add_argument(
        "--update", action="store_true", help="with --project: bring the recipe up to date with the lock"
    )
    parser.add_argument("--python", default="", metavar="X.Y", help="with --project: the version of Python")
    parser.add_argument(
        "--extra", action="append", default=[], metavar="NAME", help="with --project: an extra to install"
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="NAME", help="with --project: a dependency group"
    )
    parser.add_argument(
        "--include-code", action="store_true", help="with --project: put the project's own code into the image"
    )
    common_arguments(parser, NewOptions)


def run(options: NewOptions) -> int:
    """Create the recipe's folder and show the next steps."""
    context = Context(options)
    if options.project is not None:
        return _of_project(context, options, options.project)
    for option, given in (
        ("--update", options.update),
        ("--python", options.python),
        ("--extra", options.extra),
        ("--group", options.group),
        ("--include-code", options.include_code),
    ):
        if given:
            raise UsageError(
                f"{option} needs --project", fix=f"singfactory new {options.name} --project DIR {option} …"
            )
    if options.base is None:
        raise UsageError(
            "new needs something to start from",
            fix=f"singfactory new {options.name} --from IMAGE, or --project DIR for a Python or conda project",
        )
    folder = scaffold(context.recipes_root, options.name, options.base)
    say_path(folder)
    context.progress.note(
        f"edit {folder / 'recipe.toml'} and {folder / 'image.def'}, then: singfactory make {options.name}"
    )
    return 0


def _of_project(context: Context, options: NewOptions, place: Path) -> int:
    from factory.cli.new_project import create_recipe, update_recipe  # noqa: PLC0415 - the rest starts faster without
    from factory.recipes.projects.read import Asked  # noqa: PLC0415

    asked = Asked(
        name=options.name,
        place=place,
        base=options.base or "",
        python=options.python,
        extras=tuple(options.extra),
        groups=tuple(options.group),
        include_code=options.include_code,
    )
    return (update_recipe if options.update else create_recipe)(context, asked)

"""`singfactory new`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.convert import build_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.errors import NotFound, UsageError
from factory.recipes.scaffold import create


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
    dockerfile: Path | None
    context: Path | None
    target: str
    build_arg: list[str]


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
    parser.add_argument(
        "--dockerfile", type=Path, metavar="FILE", help="copy a Dockerfile and what it names (docs/dockerfiles.md)"
    )
    parser.add_argument(
        "--context", type=Path, metavar="DIR", help="with --dockerfile: what COPY copies from (default: FILE's folder)"
    )
    parser.add_argument(
        "--target", default="", metavar="STAGE", help="with --dockerfile: the stage (default: the last)"
    )
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="with --dockerfile: the value of an ARG"
    )
    common_arguments(parser, NewOptions)


def run(options: NewOptions) -> int:
    """Create the recipe's folder and show the next steps."""
    context = Context(options)
    if options.dockerfile is not None:
        return _of_dockerfile(context, options, options.dockerfile)
    _refuse_alone(
        options, "--dockerfile FILE", context=options.context, target=options.target, build_arg=options.build_arg
    )
    if options.project is not None:
        return _of_project(context, options, options.project)
    _refuse_alone(
        options,
        "--project DIR",
        update=options.update,
        python=options.python,
        extra=options.extra,
        group=options.group,
        include_code=options.include_code,
    )
    if options.base is None:
        raise UsageError(
            "new needs something to start from",
            fix=f"singfactory new {options.name} --from IMAGE, --dockerfile FILE, or --project DIR (Python or conda)",
        )
    from factory.cli import new_image  # noqa: PLC0415 - the rest starts faster without

    folder = new_image.create_recipe(context, options.name, options.base)
    say_path(folder)
    context.progress.note(
        f"edit {folder / 'recipe.toml'} and {folder / 'image.def'}, then: singfactory make {options.name}"
    )
    return 0


def _refuse_alone(options: NewOptions, needed: str, **given: object) -> None:
    """Raise UsageError for an option that means something only together with another one."""
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            fix = f"singfactory new {options.name} {needed} {option} …"
            raise UsageError(f"{option} needs {needed.partition(' ')[0]}", fix=fix)


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


def _of_dockerfile(context: Context, options: NewOptions, place: Path) -> int:
    from factory.recipes.dockerfile import scaffold as dockerfiles  # noqa: PLC0415 - the rest starts faster without

    if options.base is not None or options.project is not None:
        raise UsageError("--dockerfile cannot be combined with --from and --project", fix="use one of them")
    if not place.is_file():
        raise NotFound(
            f"there is no file {place}", fix=f"singfactory new {options.name} --dockerfile path/to/Dockerfile"
        )
    folder = options.context or place.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", fix="name the build context: --context DIR")
    args = build_arguments(options.build_arg)
    found = dockerfiles.read(place, folder, options.name, target=options.target, args=args)
    made = create(context.recipes_root, options.name, found.content, executable=found.executable, links=found.links)
    say_path(made)
    for path in found.left_out:
        context.progress.note(f"{path} is left out: a recipe cannot contain a git repository")
    context.progress.note(
        f"edit {made / 'recipe.toml'}, then: singfactory update {options.name} && singfactory make {options.name}"
    )
    return 0

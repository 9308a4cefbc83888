"""`singfactory build`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit
from factory.errors import BuildFailed, FactoryError, UsageError
from factory.io.files import readable_size

if TYPE_CHECKING:
    from factory.candidate import Candidate
    from factory.make import Works
    from factory.plan import Known
    from factory.recipes.model import Recipe


@dataclass(frozen=True, kw_only=True)
class BuildOptions(CommonOptions):
    """What `build` is given."""

    output: Path | None
    bases: Path | None
    force: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from factory.recipes.load import RUNNERS  # noqa: PLC0415

    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="where candidates go (default: the work folder)"
    )
    parser.add_argument(
        "--bases", type=Path, metavar="DIR", help="candidates of earlier jobs, to build upon before what is published"
    )
    parser.add_argument("--force", action="store_true", help="build anew even what was built from the same inputs")
    parser.add_argument("--runner", choices=RUNNERS, help="where to build, whatever the recipe says")
    parser.add_argument("--tmpdir", metavar="DIR", help="a folder on a local disk for temporary files")
    common_arguments(parser, BuildOptions, registry=True, json=True)


def run(options: BuildOptions) -> int:
    """Build the named recipes, published or not, bases first; prints the image of each.

    One that fails stops only what builds upon it; the exit code is that of the first failure.
    """
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.make import look, needed  # noqa: PLC0415
    from factory.plan import in_order  # noqa: PLC0415

    context = Context(options)
    recipes = context.recipes(options.names)
    works = context.works
    if options.output is not None:
        works = replace(works, candidates=options.output.absolute())
    known = look(recipes, works)
    rows, failed, code = [], set(), 0
    for recipe in in_order(recipes):
        try:
            if recipe.base_recipe in failed:
                raise BuildFailed(f"{recipe.name} is not built", why=f"its base {recipe.base_recipe} failed")
            made = _build_or_find(recipe, context, works, known, options)
        except FactoryError as error:
            failed.add(recipe.name)
            shown = fail(error)
            code = code or shown
            continue
        known = known.with_built(made) if made is not None and needed(made, recipe, known) else known
        if made is not None and recipe.name in options.names:
            rows.append({**made.to_json(), "path": str(made.image), "log": str(made.log)})
            _show(made, context)
    if options.json:
        emit(rows)
    return code


def _build_or_find(
    recipe: Recipe, context: Context, works: Works, known: Known, options: BuildOptions
) -> Candidate | None:
    """The new candidate of a recipe that was named; of one that others build upon, what was built before, if any."""
    from factory.make import build_one, built_before  # noqa: PLC0415
    from factory.runners.local import LocalRunner  # noqa: PLC0415

    handed = options.bases.absolute() if options.bases is not None else None
    if recipe.name not in options.names:
        return built_before(recipe, context.arch, known, works, handed)
    if handed is not None and recipe.base_recipe and not isinstance(works.runner(recipe), LocalRunner):
        raise UsageError(
            f"{recipe.name} cannot be built elsewhere upon images in {handed}",
            why="--bases is for builds on this machine",
            fix="--runner local, or put the candidates into the work folder",
        )
    return build_one(recipe, context.arch, known, works, force=options.force)


def _show(made: Candidate, context: Context) -> None:
    if not context.options.json:
        print(made.image, flush=True)
        size = readable_size(made.sif.size)
        context.progress.note(f"{made.recipe}: {size} in {made.seconds:.0f} s, {made.sif.digest}")

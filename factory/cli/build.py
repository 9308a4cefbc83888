"""`singfactory build`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.io.files import readable_size


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from factory.recipes.load import RUNNERS  # noqa: PLC0415

    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="where candidates go (default: the work folder)"
    )
    parser.add_argument("--force", action="store_true", help="build anew even what was built from the same inputs")
    parser.add_argument("--runner", choices=RUNNERS, help="where to build, whatever the recipe says")
    parser.add_argument("--tmpdir", metavar="DIR", help="a folder on a local disk for temporary files")
    common_arguments(parser, registry=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Build the named recipes, published or not; prints the image of each."""
    from factory.make import build_one, look  # noqa: PLC0415
    from factory.plan import in_order  # noqa: PLC0415

    context = Context(options)
    recipes = context.recipes(options.names)
    works = context.works
    if options.output is not None:
        works = replace(works, candidates=options.output.absolute())
    known = look(recipes, works)
    rows = []
    for recipe in in_order([recipe for recipe in recipes if recipe.name in options.names]):
        made = build_one(recipe, context.arch, known, works, force=options.force)
        rows.append({**made.to_json(), "path": str(made.image), "log": str(made.log)})
        if not options.json:
            print(made.image)
            context.progress.note(
                f"{recipe.name}: {readable_size(made.sif.size)} in {made.seconds:.0f} s, {made.sif.digest}"
            )
    if options.json:
        emit(rows)
    return 0

"""`singfactory build`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say_path
from factory.io.files import readable_size
from factory.make.builds import build_named
from factory.make.make import take_snapshot
from factory.recipes.document import RUNNERS
from factory.records.candidate import Candidate


@dataclass(frozen=True)
class BuildOptions(CommonOptions):
    """Options of `singfactory build`."""

    output: Path | None
    bases: Path | None
    force: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="the folder for candidates (default: the work folder)"
    )
    parser.add_argument(
        "--bases", type=Path, metavar="DIR", help="candidates of earlier jobs, preferred to published images as bases"
    )
    parser.add_argument("--force", action="store_true", help="rebuild candidates whose inputs have not changed")
    parser.add_argument("--runner", choices=RUNNERS, help="where to build (default: as the recipe says)")
    parser.add_argument("--tmpdir", metavar="DIR", help="folder for temporary files, on a local disk")
    common_arguments(parser, BuildOptions, registry=True, json=True)


def run(options: BuildOptions) -> int:
    """Build the named recipes, published or not, bases first; print the path of each image.

    A failure only stops recipes based on the failed one. Returns the exit code of the first failure.
    """
    context = Context(options)
    recipes = context.recipes.with_bases(options.names)
    adapters = open_adapters(context)
    if options.output is not None:
        adapters = replace(adapters, candidates=options.output.absolute())
    handed = options.bases.absolute() if options.bases is not None else None
    snapshot = take_snapshot(recipes, adapters)
    rows, code = [], 0
    for built in build_named(recipes, options.names, snapshot, adapters, force=options.force, handed=handed):
        if built.error is not None:
            failed = fail(built.error)
            code = code or failed
        if (made := built.candidate) is not None:
            rows.append({**made.to_json(), "path": str(made.image), "log": str(made.log)})
            _show(made, context)
    if options.json:
        emit(rows)
    return code


def _show(made: Candidate, context: Context) -> None:
    if not context.options.json:
        say_path(made.image)
        size = readable_size(made.sif.size)
        context.progress.note(f"{made.recipe}: {size} in {made.seconds:.0f} s, {made.sif.digest}")

"""`singfactory build`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say_path
from factory.errors import UsageError
from factory.io.files import readable_size
from factory.make.adapters import Adapters
from factory.make.attach import attach_named
from factory.make.builds import BuildResult, build_named
from factory.make.make import take_snapshot
from factory.recipes.document import RUNNERS
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate


@dataclass(frozen=True)
class BuildOptions(CommonOptions):
    """Options of `singfactory build`."""

    output: Path | None
    bases: Path | None
    force: bool
    test: bool
    attach: bool


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
    parser.add_argument("--test", action="store_true", help="test each image, too (jobs on SLURM always do)")
    parser.add_argument("--gpu", action="store_true", help="with --test: fail GPU tests on a machine without a GPU")
    parser.add_argument(
        "--attach", action="store_true", help="follow the recipe's SLURM job to its result; it may have ended already"
    )
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
    if options.attach and options.runner == "local":
        raise UsageError("only jobs of SLURM can be attached to", fix="leave out --runner local, or --attach")
    rows, code = [], 0
    with context.runners.ended_with_us():
        for built in _built(options, context, recipes, adapters):
            if built.error is not None:
                failed = fail(built.error)
                code = code or failed
            if (made := built.candidate) is not None:
                rows.append({**made.to_json(), "path": str(made.image), "log": str(made.log)})
                _show(made, context)
    if options.json:
        emit(rows)
    return code


def _built(
    options: BuildOptions, context: Context, recipes: Sequence[Recipe], adapters: Adapters
) -> Iterator[BuildResult]:
    if options.attach:
        return attach_named(recipes, options.names, context.runners.slurm, adapters)
    handed = options.bases.absolute() if options.bases is not None else None
    snapshot = take_snapshot(recipes, adapters)
    return build_named(
        recipes, options.names, snapshot, adapters, force=options.force, test=options.test, handed=handed
    )


def _show(made: Candidate, context: Context) -> None:
    if not context.options.json:
        say_path(made.image)
        size = readable_size(made.sif.size)
        context.progress.note(f"{made.recipe}: {size} in {made.seconds:.0f} s, {made.sif.digest}")

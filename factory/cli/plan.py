"""`singfactory plan`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.errors import FactoryError
from factory.plan import Plan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes; all without one")
    parser.add_argument("--all", action="store_true", help="plan to build everything, published or not")
    parser.add_argument("--github-matrix", action="store_true", help="the jobs as a matrix for GitHub Actions")
    common_arguments(parser, registry=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Print what must be built and why, and what must not and why. Exit 4 and its kind when something is stuck."""
    from factory.make import look, plan_for  # noqa: PLC0415

    context = Context(options)
    recipes = context.recipes(options.names)
    works = context.works
    decided, known = plan_for(recipes, works, look(recipes, works), force=options.all)
    if options.github_matrix:
        matrix = [{"recipe": job.recipe.name, "arch": job.arch, "wave": job.wave} for job in decided.jobs]
        print(json.dumps({"include": matrix}, separators=(",", ":")))
    elif options.json:
        emit(to_json(decided))
    else:
        show(decided)
        if not known.engine:
            context.progress.note("no Apptainer here: planned as if the engine had not changed")
    return exit_code(decided)


def to_json(decided: Plan) -> dict[str, Any]:
    """The plan as a JSON object."""
    return {
        "build": [
            {
                "recipe": job.recipe.name,
                "arch": job.arch,
                "reasons": list(job.reasons),
                "waits_for": job.waits_for,
                "wave": job.wave,
            }
            for job in decided.jobs
        ],
        "keep": [
            {
                "recipe": kept.recipe.name,
                "arch": kept.arch,
                "release": str(kept.release.tag) if kept.release else None,
                "why": kept.why,
            }
            for kept in decided.kept
        ],
        "stuck": [
            {"recipe": stuck.recipe.name, "arch": stuck.arch, "error": stuck.error.what, "why": stuck.error.why}
            for stuck in decided.stuck
        ],
    }


def show(decided: Plan) -> None:
    """The plan for people, one line a recipe."""
    for job in decided.jobs:
        print(f"build  {job.title}: {'; '.join(job.reasons)}")
    for kept in decided.kept:
        print(f"keep   {kept.recipe.name} ({kept.arch}): {kept.why}")
    for stuck in decided.stuck:
        print(f"stuck  {stuck.recipe.name} ({stuck.arch}): {stuck.error}")


def exit_code(decided: Plan) -> int:
    """0, or the exit code of the first recipe about which nothing can be said."""
    errors: list[FactoryError] = [stuck.error for stuck in decided.stuck]
    return errors[0].exit_code if errors else 0

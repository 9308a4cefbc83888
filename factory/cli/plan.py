"""`singfactory plan`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.quoting import command
from factory.cli.terminal import emit, fail, printable, say
from factory.errors import FactoryError, NotFound, UsageError
from factory.github.actions import Actions
from factory.github.commands import annotation
from factory.io import plain
from factory.make.make import plan_for, take_snapshot
from factory.plan import waves
from factory.recipes.document import FILE
from factory.recipes.model import Place, ProblemError
from factory.records.job import Job, Plan, Stuck

_SHOWN = 20  # recipes named in one line


@dataclass(frozen=True)
class PlanOptions(CommonOptions):
    """Options of `singfactory plan`."""

    all: bool
    github_matrix: bool
    to_publish: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes (default: all)")
    parser.add_argument("--all", action="store_true", help="plan to build every recipe, published or not")
    parser.add_argument(
        "--github-matrix", action="store_true", help="print the jobs as matrices for GitHub Actions, one per wave"
    )
    parser.add_argument(
        "--to-publish",
        action="store_true",
        help="fail if the registry denies access; without this option, what it denies counts as not published",
    )
    common_arguments(parser, PlanOptions, registry=True, json=True)


def plan_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--plan`, for commands that read the candidates of a plan's jobs."""
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="output of plan --github-matrix (-: stdin); ignore candidates that are not in it",
    )


def read_plan(file: str | None) -> frozenset[tuple[str, str]] | None:
    """Return recipe and architecture of each job in a plan file; None without a file. Raises UsageError, NotFound."""
    if file is None:
        return None
    try:
        content = plain.read_plain(Path(file), waves.PLAN_LIMIT, follow=True) if file != "-" else b""
        return waves.planned(content.decode() if file != "-" else sys.stdin.read(waves.PLAN_LIMIT + 1))
    except UnicodeDecodeError as error:
        fix = "singfactory plan --github-matrix > FILE"
        raise UsageError(f"{file} is not a plan", why="it is not UTF-8", fix=fix) from error
    except plain.NotPlainError as error:
        raise UsageError(f"{file} is not a plan", why=f"it {error.how}", fix="pipe it in, with --plan -") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no plan {file}", why=error.strerror or "") from error


def run(options: PlanOptions) -> int:
    """Print what must be built and why, and what is kept. Returns the exit code of the first stuck recipe."""
    context = Context(options)
    recipes, broken = context.recipes.select(options.names)
    adapters = open_adapters(context, publishes=options.to_publish)
    before = take_snapshot(recipes, adapters)
    decided, _ = plan_for(recipes, adapters, before, force=options.all, broken=broken)
    if options.github_matrix:
        hand_over(decided, context)
    elif options.json:
        emit(to_json(decided))
    else:
        show(decided)
        if not adapters.engine_label:
            context.progress.note("Apptainer was not found: planned as if its version had not changed")
    return exit_code(decided)


def hand_over(decided: Plan, context: Context) -> None:
    """Print the waves as JSON; in a job of GitHub Actions, set them as step outputs first.

    Stuck recipes are shown last, so that the others are still built. Raises UsageError for too many waves.
    """
    usual, settings = waves.Runners(), context.settings
    runners = waves.Runners(
        amd64=settings.text("github_runner_amd64", usual.amd64),
        arm64=settings.text("github_runner_arm64", usual.arm64),
        large=settings.text("github_runner_large", usual.large),
    )
    decision = waves.schedule(decided, runners)
    found = [waves.matrix(wave) for wave in decision.waves]
    actions = Actions.of(context.env)
    if actions.output_file is not None:
        for number in range(waves.MOST_WAVES):  # workflow jobs with an empty matrix are skipped
            actions.output(f"wave{number}", waves.compact(found[number]) if number < len(found) else "")
        actions.output("count", str(len(decided.jobs) - len(decision.left)))
    print(waves.compact({"waves": found}), flush=True)
    if decision.left:
        _show_left(decision.left, actions)
    for stuck in decided.stuck:
        _warn(stuck, actions)


def _show_left(left: Sequence[Job], actions: Actions) -> None:
    """Show on stderr which jobs do not fit into a matrix. The next run plans them again."""
    names = ", ".join(job.title for job in left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
    text = f"{len(left)} jobs wait for the next run, because GitHub allows {waves.MOST_ENTRIES} per matrix: {names}"
    if actions.active:
        command(annotation("warning", text))
    else:
        print(text, file=sys.stderr)


def _warn(stuck: Stuck, actions: Actions) -> None:
    """Show on stderr why a recipe is stuck; as an annotation in a job, which the runner reads from stderr too."""
    if not actions.active:
        fail(stuck.error)
        return
    place = stuck.error.problem.place if isinstance(stuck.error, ProblemError) else Place(stuck.recipe.folder / FILE)
    path = place.path.absolute()
    where = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else ""
    lines = (printable(line) for line in (f"{stuck.recipe.name} ({stuck.arch})", *stuck.error.lines()))
    command(annotation("error", "\n".join(lines), file=where, line=place.line))


def to_json(decided: Plan) -> dict[str, Any]:
    """Return the plan as a JSON object."""
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
            {
                "recipe": stuck.recipe.name,
                "arch": stuck.arch,
                "error": stuck.error.what,
                "why": stuck.error.why,
                "fix": stuck.error.fix,
            }
            for stuck in decided.stuck
        ],
    }


def show(decided: Plan) -> None:
    """Print the plan for people, one line per recipe."""
    for job in decided.jobs:
        say(f"build  {job.title}: {'; '.join(job.reasons)}")
    for kept in decided.kept:
        say(f"keep   {kept.recipe.name} ({kept.arch}): {kept.why}")
    for stuck in decided.stuck:
        first, *others = stuck.error.lines()
        say(f"stuck  {stuck.recipe.name} ({stuck.arch}): {first}")
        for line in others:
            say(f"       {line}")


def exit_code(decided: Plan) -> int:
    """Return 0, or the exit code of the first stuck recipe."""
    errors: list[FactoryError] = [stuck.error for stuck in decided.stuck]
    return errors[0].exit_code if errors else 0

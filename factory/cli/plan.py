"""`singfactory plan`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, printable, say
from factory.errors import FactoryError, NotFound, UsageError
from factory.records.job import Job, Plan, Stuck

if TYPE_CHECKING:
    from factory.github.actions import Actions


_SHOWN = 20  # recipes that one line names


@dataclass(frozen=True, kw_only=True)
class PlanOptions(CommonOptions):
    """What `plan` is given."""

    all: bool
    github_matrix: bool
    to_publish: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes; all without one")
    parser.add_argument("--all", action="store_true", help="plan to build everything, published or not")
    parser.add_argument(
        "--github-matrix", action="store_true", help="the jobs as matrices for GitHub Actions, one after another"
    )
    parser.add_argument(
        "--to-publish",
        action="store_true",
        help="fail if the registry denies access; without this option, what it denies counts as not published",
    )
    common_arguments(parser, PlanOptions, registry=True, json=True)


def plan_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option of those who work on what the jobs of a plan hand over."""
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="what plan --github-matrix said (-: stdin); then candidates of its jobs count, and nothing else",
    )


def given(file: str | None) -> frozenset[tuple[str, str]] | None:
    """Recipe and architecture of each job of the plan in a file; None without one. Raises UsageError, NotFound."""
    from factory.io import plain  # noqa: PLC0415
    from factory.plan.waves import PLAN_LIMIT, planned  # noqa: PLC0415

    if file is None:
        return None
    try:
        content = plain.read_plain(Path(file), PLAN_LIMIT, follow=True) if file != "-" else b""
        return planned(content.decode() if file != "-" else sys.stdin.read(PLAN_LIMIT + 1))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no plan", why="it is not UTF-8") from error
    except plain.NotPlainError as error:
        raise UsageError(f"{file} is no plan", why=f"it {error.how}", fix="pipe it in, and say --plan -") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no plan {file}", why=error.strerror or "") from error


def run(options: PlanOptions) -> int:
    """Print what must be built and why, and what must not and why. Exit 4 and its kind when something is stuck."""
    from factory.cli.adapters import open_adapters  # noqa: PLC0415
    from factory.make.make import plan_for, take_snapshot  # noqa: PLC0415

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
            context.progress.note("no Apptainer here: planned as if the engine had not changed")
    return exit_code(decided)


def hand_over(decided: Plan, context: Context) -> None:
    """Print the waves as JSON, and in a job of GitHub Actions set them as its outputs, before the stuck ones are shown.

    So that what is not stuck goes on. Raises UsageError for recipes that build upon each other too deeply.
    """
    from factory.github.actions import Actions  # noqa: PLC0415
    from factory.plan.waves import MOST_WAVES, Runners, compact, matrix, schedule  # noqa: PLC0415

    usual, settings = Runners(), context.settings
    runners = Runners(
        amd64=settings.text("github_runner_amd64", usual.amd64),
        arm64=settings.text("github_runner_arm64", usual.arm64),
        large=settings.text("github_runner_large", usual.large),
    )
    decision = schedule(decided, runners)
    found = [matrix(wave) for wave in decision.waves]
    actions = Actions.of(context.env)
    if actions.output_file is not None:
        for number in range(MOST_WAVES):  # a job without a wave is skipped: no output, no matrix
            actions.output(f"wave{number}", compact(found[number]) if number < len(found) else "")
        actions.output("count", str(len(decided.jobs) - len(decision.left)))
    print(compact({"waves": found}), flush=True)
    if decision.left:
        _tell_left(decision.left, actions)
    for stuck in decided.stuck:
        _warn(stuck, actions)


def _tell_left(left: Sequence[Job], actions: Actions) -> None:
    """Say on stderr what no matrix has room for. It is planned again by the next run."""
    from factory.cli.quoting import command  # noqa: PLC0415
    from factory.github.commands import annotation  # noqa: PLC0415
    from factory.plan.waves import MOST_ENTRIES  # noqa: PLC0415

    names = ", ".join(job.title for job in left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
    text = f"{len(left)} are left for the next run, since GitHub takes {MOST_ENTRIES} jobs a matrix: {names}"
    if actions.active:
        command(annotation("warning", text))
    else:
        print(text, file=sys.stderr)


def _warn(stuck: Stuck, actions: Actions) -> None:
    """Say on stderr why nothing can be said about a recipe; the runner reads annotations there as well."""
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.cli.quoting import command  # noqa: PLC0415
    from factory.github.commands import annotation  # noqa: PLC0415
    from factory.recipes.load import FILE  # noqa: PLC0415
    from factory.recipes.model import Place, ProblemError  # noqa: PLC0415

    if not actions.active:
        fail(stuck.error)
        return
    place = stuck.error.problem.place if isinstance(stuck.error, ProblemError) else Place(stuck.recipe.folder / FILE)
    path = place.path.absolute()
    where = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else ""
    lines = (printable(line) for line in (f"{stuck.recipe.name} ({stuck.arch})", *stuck.error.lines()))
    command(annotation("error", "\n".join(lines), file=where, line=place.line))


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
    """The plan for people, one line a recipe."""
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
    """0, or the exit code of the first recipe about which nothing can be said."""
    errors: list[FactoryError] = [stuck.error for stuck in decided.stuck]
    return errors[0].exit_code if errors else 0

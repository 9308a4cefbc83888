"""`singfactory report`: summarize a run for the step's summary, the pull request, a check and issues."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factory.cli.adapters import make_work, open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.github_access import connect, default_branch
from factory.cli.options import CommonOptions
from factory.cli.plan import plan_argument, read_plan
from factory.cli.terminal import fail
from factory.errors import FactoryError, IntegrityFailure, NotFound, UsageError
from factory.github.actions import Actions
from factory.io import files, git, plain
from factory.make.make import plan_for, take_snapshot
from factory.records.artifacts import artifacts_in
from factory.report import summary
from factory.report.markdown import markdown
from factory.report.post import Poster, reported_run
from factory.report.run_report import run_report
from factory.report.summary import Row, from_json, to_json

FILE = "run-report.json"
_ORIGIN = "This is what the pull request's own run says of itself. Nothing of it is published."


@dataclass(frozen=True)
class ReportOptions(CommonOptions):
    """Options of `singfactory report`."""

    handed: Path | None
    pull_request: bool
    all: bool
    comment: bool
    issues: bool
    annotate: bool
    plan: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes (default: all)")
    parser.add_argument(
        "--from", dest="handed", type=Path, metavar="FILE", help="show the report file of a pull request's run"
    )
    parser.add_argument(
        "--pull-request", action="store_true", help="report what merging would change; nothing is published yet"
    )
    parser.add_argument("--all", action="store_true", help="the run was to rebuild every recipe, published or not")
    parser.add_argument("--comment", action="store_true", help="create or update one comment on the pull request")
    parser.add_argument(
        "--issues", action="store_true", help="keep one open issue for each failing recipe; close it when fixed"
    )
    parser.add_argument(
        "--annotate", action="store_true", help="annotate the files of failed recipes with a check on the commit"
    )
    plan_argument(parser)
    common_arguments(parser, ReportOptions, registry=True)


def run(options: ReportOptions) -> int:
    """Print the report as Markdown, add it to the step's summary, and save it in the work folder."""
    if options.handed is not None and options.issues:
        raise UsageError("--issues cannot be combined with --from", fix="remove --from or --issues")
    context = Context(options)
    actions = Actions.of(context.env)
    if options.handed is not None:
        rows = from_json(_content(options.handed))
    else:
        rows = _rows(context, options)
        _save(context, to_json(rows))
    origin = _ORIGIN if options.handed is not None else ""
    text = markdown(rows, where=str(context.address), run_url=reported_run(actions), origin=origin)
    print(text, end="")
    if actions.summary_file is not None:
        actions.summary(text)
    return _post(context, options, actions, rows, text)


def _post(context: Context, options: ReportOptions, actions: Actions, rows: tuple[Row, ...], text: str) -> int:
    """Post where the options say. One failed post does not stop the others; returns the first exit code."""
    poster = Poster(
        partial(connect, context),
        actions,
        context.progress,
        where=str(context.address),
        branch=default_branch(context),
        recipes=_recipes_in_repository(context) if options.annotate else "",
    )
    complete = not options.names and options.handed is None
    codes = []
    if options.comment:
        codes.append(_code_of(partial(poster.comment, text)))
    if options.annotate:
        codes.append(_code_of(partial(poster.annotate, rows, text)))
    if options.issues:
        codes.append(_code_of(lambda: [fail(error) for error in poster.issues(rows, complete=complete)]))
    return next((code for code in codes if code), 0)


def _recipes_in_repository(context: Context) -> str:
    project = git.find(context.recipes_root, context.env)
    return (project and project.place(context.recipes_root)) or "recipes/"


def _code_of(post: Callable[[], list[int] | None]) -> int:
    """Post; returns the exit code of the first failure, 0 without one."""
    try:
        return next(iter(post() or ()), 0)
    except FactoryError as error:
        return fail(error)


def _rows(context: Context, options: ReportOptions) -> tuple[Row, ...]:
    """The rows of this run. Broken artifacts that belong to no recipe are shown on stderr."""
    adapters = open_adapters(context, publishes=options.issues)
    planned = read_plan(options.plan)
    recipes, broken = context.recipes.select(options.names)
    decided, snapshot = plan_for(recipes, adapters, take_snapshot(recipes, adapters), broken=broken)
    artifacts = artifacts_in(adapters.candidates, planned, first_attempt=Actions.of(context.env).first_attempt)
    for artifact in artifacts:
        if artifact.target is None and isinstance(artifact.made, FactoryError):
            fail(artifact.made)
    rows = run_report(
        decided,
        artifacts,
        adapters.candidates,
        catalog=snapshot.catalog,
        registry=adapters.registry,
        planned=planned,
        forced=options.all,
        publishes=not options.pull_request,
    )
    return tuple(row for row in rows if not options.names or row.recipe in options.names)


def _save(context: Context, text: str) -> None:
    files.atomic_write(make_work(context) / FILE, text)


def _content(path: Path) -> bytes:
    try:
        return plain.read_plain(path, summary.LIMIT)
    except plain.NotPlainError as error:
        raise IntegrityFailure("the report cannot be read", why=f"it {error.how}", fix=error.fix) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no report at {path}", why=error.strerror or "") from error

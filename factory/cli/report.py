"""`singfactory report`: what a run of the factory has to tell, for a step's summary, a pull request and issues."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.plan import given, plan_argument
from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, UsageError

if TYPE_CHECKING:
    from factory.github.actions import Actions
    from factory.github.model import Annotation
    from factory.github.rest import GitHub
    from factory.report.summary import Row

FILE = "run-report.json"
_CHECK = "singfactory"
_MOST_MARKS = 200  # of one check: each 50 are a request
_PREFIX = "recipe/"  # of the keys of issues
_GONE = "This recipe is no longer in the repository."
_ORIGIN = "This is what the pull request's own run says of itself. Nothing of it is published."


@dataclass(frozen=True, kw_only=True)
class ReportOptions(CommonOptions):
    """What `report` is given."""

    handed: Path | None
    pull_request: bool
    all: bool
    comment: bool
    issues: bool
    annotate: bool
    plan: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes; all without one")
    parser.add_argument(
        "--from", dest="handed", type=Path, metavar="FILE", help="show what a pull request's run has reported"
    )
    parser.add_argument(
        "--pull-request", action="store_true", help="nothing is published: this is what a pull request would change"
    )
    parser.add_argument("--all", action="store_true", help="all of these were to be built anew, published or not")
    parser.add_argument("--comment", action="store_true", help="keep one comment on the pull request up to date")
    parser.add_argument(
        "--issues", action="store_true", help="keep one issue open for each recipe that fails, and close it when mended"
    )
    parser.add_argument(
        "--annotate", action="store_true", help="mark what failed in the recipes' files, by a check of the commit"
    )
    plan_argument(parser)
    common_arguments(parser, ReportOptions, registry=True)


def run(options: ReportOptions) -> int:
    """Print the report as Markdown, add it to the step's summary, and keep it as a file beside the candidates."""
    from factory.github.actions import Actions  # noqa: PLC0415
    from factory.report.markdown import markdown  # noqa: PLC0415
    from factory.report.summary import from_json, to_json  # noqa: PLC0415

    if options.handed is not None and options.issues:
        raise UsageError("--issues is for what this run has found itself", fix="leave out --from, or --issues")
    context = Context(options)
    actions = Actions.of(context.env)
    if options.handed is not None:
        found = from_json(_content(options.handed))
    else:
        found = _rows(context, options)
        _keep(context, to_json(found))
    origin = _ORIGIN if options.handed is not None else ""
    text = markdown(found, where=str(context.address), run_url=_run_url(actions), origin=origin)
    print(text, end="")
    if actions.summary_file is not None:
        actions.summary(text)
    ways = (
        (options.comment, partial(_comment, context, actions, text)),
        (options.annotate, partial(_annotate, context, actions, found, text)),
        (
            options.issues,
            partial(_issues, context, actions, found, closing=not options.names and options.handed is None),
        ),
    )
    codes = [_code_of(way) for wanted, way in ways if wanted]
    return next((code for code in codes if code), 0)


def _code_of(way: Callable[[], int]) -> int:
    """Go one way of telling. What GitHub refuses there does not stop the others."""
    from factory.cli.main import fail  # noqa: PLC0415

    try:
        return way()
    except FactoryError as error:
        return fail(error)


def _rows(context: Context, options: ReportOptions) -> tuple[Row, ...]:
    """The rows of this run. What lies among the candidates and belongs to no recipe is shown on stderr."""
    from factory.cli.adapters import open_adapters  # noqa: PLC0415
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.make.make import plan_for, take_snapshot  # noqa: PLC0415
    from factory.records.artifacts import artifacts_in  # noqa: PLC0415
    from factory.report.run_report import run_report  # noqa: PLC0415

    adapters = open_adapters(context, publishes=options.issues)
    planned = given(options.plan)
    recipes, broken = context.recipes.select(options.names)
    decided, snapshot = plan_for(recipes, adapters, take_snapshot(recipes, adapters), broken=broken)
    artifacts = artifacts_in(adapters.candidates, planned)
    for artifact in artifacts:
        if artifact.target is None and isinstance(artifact.made, FactoryError):
            fail(artifact.made)
    found = run_report(
        decided,
        artifacts,
        adapters.candidates,
        catalog=snapshot.catalog,
        registry=adapters.registry,
        planned=planned,
        forced=options.all,
        publishes=not options.pull_request,
    )
    return tuple(row for row in found if not options.names or row.recipe in options.names)


def _keep(context: Context, text: str) -> None:
    from factory.io import files  # noqa: PLC0415

    files.make_folder(context.work)
    files.atomic_write(context.work / FILE, text)


def _content(path: Path) -> bytes:
    from factory.io import plain  # noqa: PLC0415
    from factory.report import summary  # noqa: PLC0415

    try:
        return plain.read_plain(path, summary.LIMIT)
    except plain.NotPlainError as error:
        raise IntegrityFailure("the report cannot be read", why=f"it {error.how}", fix=error.fix) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no report at {path}", why=error.strerror or "") from error


def _run_url(actions: Actions) -> str:
    """The run that was reported on: the one that started this one, where there is such a one."""
    return actions.reported_run_url or actions.run_url


def _comment(context: Context, actions: Actions, text: str) -> int:
    from factory.cli.github_access import connect  # noqa: PLC0415

    remote = connect(context)
    number = actions.pull_request or _pull_request(remote, actions)
    if number is None:
        context.progress.note("no pull request belongs to this run; nothing is commented on")
        return 0
    done = remote.comment(number, "report", text)
    context.progress.note(f"comment {done.change.value}: {done.url}")
    return 0


def _pull_request(remote: GitHub, actions: Actions) -> int | None:
    """The open pull request of the run that was reported on; a fork's event does not name it."""
    head = actions.reported_head
    if head is None and actions.event_name == "workflow_run":
        return None  # the fork is gone, and its pull request is closed
    if head is None:
        raise UsageError("no pull request is known", fix="run this in a workflow of pull_request or workflow_run")
    return remote.pull_request_of(*head)


def _annotate(context: Context, actions: Actions, found: tuple[Row, ...], text: str) -> int:
    """Mark what failed, as one check of the commit; where all is well, only take back an earlier one."""
    from factory.cli.github_access import connect  # noqa: PLC0415
    from factory.report.summary import BAD  # noqa: PLC0415

    sha = actions.reported_sha
    if not sha:
        raise UsageError("no commit is known that could be marked", fix="run this in a workflow on GitHub")
    remote = connect(context)
    bad = [row for row in found if row.outcome in BAD]
    if not bad and remote.checked(sha, _CHECK) in ("", "success"):
        return 0
    headline = text.partition("\n")[0].removeprefix("### singfactory: ")
    check = remote.annotate(
        sha,
        _CHECK,
        "failure" if bad else "success",
        title=headline,
        summary=text,
        annotations=_marks(context, bad[:_MOST_MARKS]),
    )
    context.progress.note(f"check with {check.annotations} annotations: {check.url}")
    return 0


def _marks(context: Context, bad: Sequence[Row]) -> list[Annotation]:
    """A remark for each row. Where recipes are, this checkout says; a row names no more than a file of its recipe."""
    from factory.github.model import Annotation  # noqa: PLC0415
    from factory.io import git  # noqa: PLC0415
    from factory.recipes.load import FILE as RECIPE  # noqa: PLC0415
    from factory.report.markdown import one_line  # noqa: PLC0415

    project = git.find(context.recipes_root, context.env)
    place = (project and project.place(context.recipes_root)) or "recipes/"
    return [
        Annotation(
            f"{place}{row.recipe}/{row.file or RECIPE}",
            row.line or 1,
            "error",
            one_line("; ".join(filter(None, (row.outcome, row.tests, row.why)))),
            title=f"{row.recipe} ({row.arch})",
        )
        for row in bad
    ]


def _issues(context: Context, actions: Actions, found: tuple[Row, ...], *, closing: bool) -> int:
    """Keep the issues. One that GitHub refuses does not stop the others; returns the exit code of the first.

    closing: close those of recipes that are gone, too.
    """
    from factory.cli.github_access import connect  # noqa: PLC0415
    from factory.cli.main import fail  # noqa: PLC0415

    remote = connect(context)
    recipes = sorted({row.recipe for row in found})
    reported = remote.failures(_PREFIX)
    code = 0
    if closing:
        _close_gone(context, remote, actions, reported - {_key(recipe) for recipe in recipes})
    for recipe in recipes:
        mine = [row for row in found if row.recipe == recipe]
        try:
            _issue(context, remote, actions, mine, reported=_key(recipe) in reported)
        except AccessDenied:
            raise  # the same for all
        except FactoryError as error:
            failed = fail(error)
            code = code or failed
    return code


def _key(recipe: str) -> str:
    """Under which the issue of a recipe is found again. A folder in which nothing can be read has any name."""
    from factory.github.texts import key_of, marker  # noqa: PLC0415

    key = f"{_PREFIX}{recipe}"
    shown = key_of(marker(key)) == key
    return key if shown else f"{_PREFIX}sha256-{hashlib.sha256(recipe.encode('utf-8', 'replace')).hexdigest()}"


def _close_gone(context: Context, remote: GitHub, actions: Actions, keys: Collection[str]) -> None:
    """Close the issues of recipes that are not there any more, if this checkout is the branch as it is now."""
    from factory.cli.github_access import default_branch  # noqa: PLC0415

    if not keys:
        return
    if remote.tip(default_branch(context)) != actions.sha:
        context.progress.note("the branch has gone on; the issues of recipes that are gone are left to a later run")
        return
    for key in sorted(keys):
        closed = remote.mended(key, _GONE, gone=True)
        if closed is not None:
            context.progress.note(f"issue closed: {closed.url}")


def _issue(context: Context, remote: GitHub, actions: Actions, mine: Sequence[Row], *, reported: bool) -> None:
    """Open or update the issue of one recipe, or close it. What is tested and not published yet leaves it as it is."""
    from factory.report.markdown import markdown  # noqa: PLC0415
    from factory.report.summary import BAD, lasting  # noqa: PLC0415

    recipe, where = mine[0].recipe, str(context.address)
    outcomes = {row.outcome for row in mine}
    if outcomes & BAD:
        text = markdown(lasting(mine), where=where) + _all_runs(actions)
        issue = remote.failing(_key(recipe), f"{recipe} cannot be published", text, ["singfactory"])
        context.progress.note(f"issue {issue.change.value}: {issue.url}")
    elif reported and outcomes <= {"published", "unchanged"}:
        closed = remote.mended(_key(recipe), markdown(mine, where=where, run_url=_run_url(actions)))
        if closed is not None:
            context.progress.note(f"issue closed: {closed.url}")


def _all_runs(actions: Actions) -> str:
    """Where the logs are. An issue names no single run, as each night's would be news to whoever follows it."""
    if not (actions.server_url and actions.repository):
        return ""
    return f"\n[The logs of all runs]({actions.server_url}/{actions.repository}/actions)\n"

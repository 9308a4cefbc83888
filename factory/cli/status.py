"""`singfactory status`: recent workflow runs, published images, and drift from the recipes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.github_access import connect
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, printable, say
from factory.errors import FactoryError
from factory.github.model import Run
from factory.make.make import plan_for, take_snapshot
from factory.records.catalog import Catalog
from factory.records.job import Plan

if TYPE_CHECKING:  # needs PyGithub, which only the factory side installs
    from factory.github.rest import GitHub

_SCHEDULED = "scheduled.yml"
_WORKFLOWS = ("publish.yml", _SCHEDULED)
_RUNS = 3


@dataclass(frozen=True)
class StatusOptions(CommonOptions):
    """Options of `singfactory status`."""

    keep_alive: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--keep-alive",
        action="store_true",
        help="only re-enable the nightly workflow, which GitHub disables after 60 quiet days",
    )
    common_arguments(parser, StatusOptions, registry=True, json=True)


def run(options: StatusOptions) -> int:
    """Print the state of each recipe. A recipe that differs from its published image is shown as drift."""
    context = Context(options)
    if options.keep_alive:
        return _keep_alive(context)
    recipes, broken = context.recipes.usable()
    adapters = open_adapters(context)
    decided, snapshot = plan_for(recipes, adapters, take_snapshot(recipes, adapters), broken=broken)
    states = sorted(_states(decided, snapshot.catalog), key=lambda row: (row["recipe"], row["arch"]))
    runs = _runs(context)
    if options.json:
        emit({"recipes": states, "runs": [_run(name, found) for name, found in runs]})
        return 0
    for row in states:
        tag = row["published"] or "nothing published"
        why = f": {printable(row['why'])}" if row["why"] else ""  # may quote a registry
        say(f"{row['state']:<7}  {row['recipe']} ({row['arch']})  {tag}{why}")
    for name, found in runs:
        when = found.created.strftime("%Y-%m-%d %H:%M")
        say(f"run      {name}  {when} UTC  {found.conclusion or found.status}  {found.url}")
    return 0


def _keep_alive(context: Context) -> int:
    connect(context).keep_alive(_SCHEDULED)
    context.progress.note(f"{_SCHEDULED} is enabled")
    return 0


def _states(decided: Plan, catalog: Catalog) -> list[dict[str, Any]]:
    """Rows by recipe and architecture. State: ok (up to date), drift (must be built) or stuck (cannot be planned)."""
    rows = [
        *((job.recipe.name, job.arch, "drift", "; ".join(job.reasons)) for job in decided.jobs),
        *((kept.recipe.name, kept.arch, "ok", kept.why if kept.release is None else "") for kept in decided.kept),
        *((stuck.recipe.name, stuck.arch, "stuck", "; ".join(stuck.error.lines())) for stuck in decided.stuck),
    ]
    return [
        {"recipe": name, "arch": arch, "state": state, "published": _tag(catalog, name, arch), "why": why}
        for name, arch, state, why in rows
    ]


def _tag(catalog: Catalog, name: str, arch: str) -> str | None:
    newest = catalog.entry(name).newest(arch)
    return str(newest.tag) if newest else None


def _runs(context: Context) -> list[tuple[str, Run]]:
    """Recent runs of the workflows; none, with a notice, if GitHub cannot be reached."""
    try:
        remote = connect(context)
    except FactoryError as error:
        context.progress.note(f"cannot list workflow runs: {error}")
        return []
    return [(name, found) for name in _WORKFLOWS for found in _runs_of(name, remote, context)]


def _runs_of(name: str, remote: GitHub, context: Context) -> tuple[Run, ...]:
    try:
        return remote.runs(name, _RUNS)
    except FactoryError as error:
        context.progress.note(f"cannot list runs of {name}: {error}")
        return ()


def _run(name: str, found: Run) -> dict[str, Any]:
    return {
        "workflow": name,
        "event": found.event,
        "status": found.status,
        "conclusion": found.conclusion,
        "created": found.created.isoformat(),
        "url": found.url,
        "sha": found.sha,
    }

"""`singfactory publish`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments, verify_argument
from factory.cli.options import CommonOptions
from factory.cli.plan import plan_argument, read_plan
from factory.cli.terminal import emit, fail, say
from factory.errors import FactoryError, UsageError
from factory.github.actions import Actions
from factory.make.adapters import Adapters
from factory.make.handover import EntryResult, publish_all
from factory.make.make import finish_kept, plan_for, publish_one, take_snapshot
from factory.recipes.model import Recipe
from factory.records import candidate, report
from factory.records.candidate import Candidate
from factory.records.inputs import GatherInputs, gather_once
from factory.records.job import Stuck
from factory.records.release import Release


@dataclass(frozen=True)
class PublishOptions(CommonOptions):
    """Options of `singfactory publish`."""

    all: bool
    plan: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="built and tested recipes")
    parser.add_argument(
        "--all",
        action="store_true",
        help="publish every candidate in the work folder, even if one fails",
    )
    plan_argument(parser)
    verify_argument(parser)
    common_arguments(parser, PublishOptions, registry=True, json=True)


def run(options: PublishOptions) -> int:
    """Publish tested candidates; print the tag and the digests of each."""
    if options.all == bool(options.names):
        raise UsageError("publish takes either names or --all", fix="singfactory publish NAME, or add --all")
    if options.plan is not None and not options.all:
        raise UsageError("--plan is only allowed with --all", fix="singfactory publish --all --plan FILE")
    context = Context(options)
    return _all(context, options) if options.all else _named(context, options)


def _named(context: Context, options: PublishOptions) -> int:
    adapters = open_adapters(context, publishes=True)
    rows = []
    for recipe in context.recipes.with_bases(options.names):
        if recipe.name not in options.names:
            continue
        made = candidate.load(adapters.candidates, recipe.name, context.arch)
        release = publish_one(recipe, made, report.load(made.folder, recipe.name), adapters)
        rows.append(_row(release, made, adapters))
        if not options.json:
            say(_line(release, made, adapters))
    if options.json:
        emit(rows)
    return 0


def _all(context: Context, options: PublishOptions) -> int:
    """Publish all candidates, and update the catalog entries of all other recipes."""
    adapters = open_adapters(context, publishes=True)
    recipes, _ = context.recipes.usable()  # plan and report show the broken ones
    gather_inputs = gather_once()
    rows, code = [], 0
    first_attempt = Actions.of(context.env).first_attempt
    for handed in publish_all(
        adapters, context.recipes.named, read_plan(options.plan), gather_inputs, first_attempt=first_attempt
    ):
        rows.append(_handed_row(handed, adapters))
        if handed.error is not None:
            first = fail(handed.error)
            code = code or first
        elif handed.release is not None and handed.candidate is not None and not options.json:
            say(_line(handed.release, handed.candidate, adapters), flush=True)
    try:
        errors = [stuck.error for stuck in _finish_others(recipes, adapters, gather_inputs)]
    except FactoryError as failure:
        errors = [failure]
    for error in errors:
        last = fail(error)
        code = code or last
    if options.json:
        emit(rows)
    return code


def _finish_others(recipes: Sequence[Recipe], adapters: Adapters, gather_inputs: GatherInputs) -> tuple[Stuck, ...]:
    """Announce releases that are missing from the catalog, for example because an earlier run died."""
    before = take_snapshot(recipes, adapters)
    decided, after = plan_for(recipes, adapters, before, gather_inputs=gather_inputs)
    return finish_kept(decided, before, after, adapters)


def _line(release: Release, made: Candidate, adapters: Adapters) -> str:
    place = f"{adapters.registry.describe()}/{release.recipe}:{release.tag}@{release.digest}"
    return f"{place} sif {release.sif.digest}{' (unchanged)' if _is_unchanged(release, made) else ''}"


def _row(release: Release, made: Candidate, adapters: Adapters) -> dict[str, Any]:
    row = {"recipe": release.recipe, "registry": adapters.registry.describe(), **release.to_json()}
    return {**row, "unchanged": _is_unchanged(release, made)}


def _is_unchanged(release: Release, made: Candidate) -> bool:
    """Return True if the build has the same contents as an earlier release."""
    return release.sif.digest != made.sif.digest


def _handed_row(handed: EntryResult, adapters: Adapters) -> dict[str, Any]:
    """The JSON row of a candidate. error: why it was not published, null if it was."""
    if handed.release is not None and handed.candidate is not None:
        return {**_row(handed.release, handed.candidate, adapters), "folder": handed.name, "error": None}
    made, error = handed.candidate, handed.error
    return {
        "recipe": made.recipe if made else None,
        "registry": adapters.registry.describe(),
        "arch": made.arch if made else None,
        "folder": handed.name,
        "error": str(error) if error else None,
    }

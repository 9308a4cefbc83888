"""`singfactory publish`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory.cli.context import Context, common_arguments, verify_argument
from factory.cli.options import CommonOptions
from factory.cli.plan import given, plan_argument
from factory.cli.terminal import emit, say
from factory.errors import FactoryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from factory.make.adapters import Adapters
    from factory.make.handover import Handed
    from factory.recipes.model import Recipe
    from factory.records.candidate import Candidate
    from factory.records.job import Stuck
    from factory.records.release import Release


@dataclass(frozen=True, kw_only=True)
class PublishOptions(CommonOptions):
    """What `publish` is given."""

    all: bool
    plan: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes that were built and tested")
    parser.add_argument(
        "--all", action="store_true", help="every candidate in the work folder; failures stop no others"
    )
    plan_argument(parser)
    verify_argument(parser)
    common_arguments(parser, PublishOptions, registry=True, json=True)


def run(options: PublishOptions) -> int:
    """Publish the tested candidates; prints tag and digests of each."""
    if options.all == bool(options.names):
        raise UsageError("publish takes either names or --all", fix="singfactory publish NAME... or --all")
    if options.plan is not None and not options.all:
        raise UsageError("--plan says what --all may publish", fix="singfactory publish --all --plan FILE")
    context = Context(options)
    return _all(context, options) if options.all else _named(context, options)


def _named(context: Context, options: PublishOptions) -> int:
    from factory.cli.adapters import open_adapters  # noqa: PLC0415
    from factory.make.make import publish_one  # noqa: PLC0415
    from factory.records import candidate, report  # noqa: PLC0415

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
    """Publish all candidates, and bring the catalog up to date for the other recipes."""
    from factory.cli.adapters import open_adapters  # noqa: PLC0415
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.make.handover import publish_all  # noqa: PLC0415

    adapters = open_adapters(context, publishes=True)
    recipes, _ = context.recipes.usable()  # what is broken, plan and report tell
    rows, code = [], 0
    for handed in publish_all(adapters, context.recipes.named, given(options.plan)):
        rows.append(_handed_row(handed, adapters))
        if handed.error is not None:
            first = fail(handed.error)
            code = code or first
        elif handed.release is not None and handed.candidate is not None and not options.json:
            say(_line(handed.release, handed.candidate, adapters), flush=True)
    try:
        errors = [stuck.error for stuck in _finish_others(recipes, adapters)]
    except FactoryError as failure:
        errors = [failure]
    for error in errors:
        last = fail(error)
        code = code or last
    if options.json:
        emit(rows)
    return code


def _finish_others(recipes: Sequence[Recipe], adapters: Adapters) -> tuple[Stuck, ...]:
    """What is published as it should be, and not in the catalog as it should be: after a run that died, say."""
    from factory.make.make import finish_kept, plan_for, take_snapshot  # noqa: PLC0415

    before = take_snapshot(recipes, adapters)
    decided, after = plan_for(recipes, adapters, before)
    return finish_kept(decided, before, after, adapters)


def _line(release: Release, made: Candidate, adapters: Adapters) -> str:
    place = f"{adapters.registry.describe()}/{release.recipe}:{release.tag}@{release.digest}"
    return f"{place} sif {release.sif.digest}{' (unchanged)' if _is_unchanged(release, made) else ''}"


def _row(release: Release, made: Candidate, adapters: Adapters) -> dict[str, Any]:
    row = {"recipe": release.recipe, "registry": adapters.registry.describe(), **release.to_json()}
    return {**row, "unchanged": _is_unchanged(release, made)}


def _is_unchanged(release: Release, made: Candidate) -> bool:
    """Whether what was built has the contents of a release that was there before."""
    return release.sif.digest != made.sif.digest


def _handed_row(handed: Handed, adapters: Adapters) -> dict[str, Any]:
    """The row of a release, or of a candidate that was not published; error is null for a release."""
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

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
    from factory.candidate import Candidate
    from factory.handover import Handed
    from factory.make import Works
    from factory.plan import Stuck
    from factory.recipes.model import Recipe
    from factory.release import Release


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
    from factory import candidate, report  # noqa: PLC0415
    from factory.make import publish_one  # noqa: PLC0415

    works = context.works
    rows = []
    for recipe in context.recipes(options.names):
        if recipe.name not in options.names:
            continue
        made = candidate.load(works.candidates, recipe.name, context.arch)
        release = publish_one(recipe, made, report.load(made.folder, recipe.name), works)
        rows.append(_row(release, made, works))
        if not options.json:
            say(_line(release, made, works))
    if options.json:
        emit(rows)
    return 0


def _all(context: Context, options: PublishOptions) -> int:
    """Publish all candidates, and bring the catalog up to date for the other recipes."""
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.handover import publish_all  # noqa: PLC0415
    from factory.recipes.load import find  # noqa: PLC0415

    def recipe_of(name: str) -> Recipe:
        (recipe,) = find(context.recipes_root, [name])
        return recipe

    works = context.works
    rows, code = [], 0
    for handed in publish_all(works, recipe_of, given(options.plan)):
        rows.append(_handed_row(handed, works))
        if handed.error is not None:
            first = fail(handed.error)
            code = code or first
        elif handed.release is not None and handed.candidate is not None and not options.json:
            say(_line(handed.release, handed.candidate, works), flush=True)
    try:
        errors = [stuck.error for stuck in _finish_others(context)]
    except FactoryError as failure:
        errors = [failure]
    for error in errors:
        last = fail(error)
        code = code or last
    if options.json:
        emit(rows)
    return code


def _finish_others(context: Context) -> tuple[Stuck, ...]:
    """What is published as it should be, and not in the catalog as it should be: after a run that died, say."""
    from factory.cli.workshop import usable  # noqa: PLC0415
    from factory.make import finish_kept, look, plan_for  # noqa: PLC0415

    works, (recipes, _) = context.works, usable(context, ())  # what is broken, plan and report tell
    seen = look(recipes, works)
    decided, known = plan_for(recipes, works, seen)
    return finish_kept(decided, seen, known, works)


def _line(release: Release, made: Candidate, works: Works) -> str:
    place = f"{works.registry.describe()}/{release.recipe}:{release.tag}@{release.digest}"
    return f"{place} sif {release.sif.digest}{' (unchanged)' if _is_unchanged(release, made) else ''}"


def _row(release: Release, made: Candidate, works: Works) -> dict[str, Any]:
    told = {"recipe": release.recipe, "registry": works.registry.describe(), **release.to_json()}
    return {**told, "unchanged": _is_unchanged(release, made)}


def _is_unchanged(release: Release, made: Candidate) -> bool:
    """Whether what was built has the contents of a release that was there before."""
    return release.sif.digest != made.sif.digest


def _handed_row(handed: Handed, works: Works) -> dict[str, Any]:
    """The row of a release, or of a candidate that was not published; error is null for a release."""
    if handed.release is not None and handed.candidate is not None:
        return {**_row(handed.release, handed.candidate, works), "folder": handed.name, "error": None}
    made, error = handed.candidate, handed.error
    return {
        "recipe": made.recipe if made else None,
        "registry": works.registry.describe(),
        "arch": made.arch if made else None,
        "folder": handed.name,
        "error": str(error) if error else None,
    }

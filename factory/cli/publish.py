"""`singfactory publish`."""

from __future__ import annotations

import argparse

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes that were built and tested")
    common_arguments(parser, registry=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Publish the tested candidates; prints tag and digest of each."""
    from factory import candidate, report  # noqa: PLC0415
    from factory.make import publish_one  # noqa: PLC0415

    context = Context(options)
    works = context.works
    rows = []
    for recipe in context.recipes(options.names):
        if recipe.name not in options.names:
            continue
        made = candidate.load(works.candidates, recipe.name, context.arch)
        release = publish_one(recipe, made, report.load(made.folder, recipe.name), works)
        rows.append({"recipe": recipe.name, "registry": works.registry.describe(), **release.to_json()})
        if not options.json:
            print(f"{works.registry.describe()}/{recipe.name}:{release.tag}@{release.digest}")
    if options.json:
        emit(rows)
    return 0

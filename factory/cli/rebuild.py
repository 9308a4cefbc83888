"""`singfactory rebuild`: start the workflow that rebuilds and publishes recipes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.github_access import connect, default_branch, where
from factory.cli.options import CommonOptions
from factory.cli.terminal import say
from factory.recipes import load

WORKFLOW = "publish.yml"


@dataclass(frozen=True)
class RebuildOptions(CommonOptions):
    """Options of `singfactory rebuild`."""

    branch: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument("--branch", metavar="BRANCH", help="branch to build from (default: main)")
    common_arguments(parser, RebuildOptions)


def run(options: RebuildOptions) -> int:
    """Start the workflow; print the address of its run, or of the list of runs if GitHub does not show it yet."""
    context = Context(options)
    found = load.find(context.recipes_root, options.names)  # a wrong name fails here, not in the workflow
    names = " ".join(recipe.name for recipe in found)
    branch = options.branch or default_branch(context)
    started = connect(context).start(WORKFLOW, branch, {"names": names, "force": "true"})
    server, repository = where(context)
    context.progress.note(f"{names}: workflow started on {branch}")
    say(started.url if started else f"{server}/{repository}/actions/workflows/{WORKFLOW}")
    return 0

"""`singfactory make`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from factory.cli import plan as plan_command
from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments, verify_argument
from factory.cli.findings import show as show_findings
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say
from factory.io.files import readable_size
from factory.make.make import Made, make
from factory.recipes.document import RUNNERS


@dataclass(frozen=True)
class MakeOptions(CommonOptions):
    """Options of `singfactory make`."""

    force: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes (default: all)")
    parser.add_argument("--force", action="store_true", help="rebuild recipes that are up to date")
    parser.add_argument("--gpu", action="store_true", help="fail GPU tests on a machine without a GPU")
    parser.add_argument("--runner", choices=RUNNERS, help="where to build (default: as the recipe says)")
    parser.add_argument("--tmpdir", metavar="DIR", help="folder for temporary files, on a local disk")
    verify_argument(parser)
    common_arguments(parser, MakeOptions, registry=True, store=True, json=True)


def run(options: MakeOptions) -> int:
    """Build, test and publish every outdated recipe. Returns the exit code of the first failure."""
    context = Context(options)
    recipes, broken = context.recipes.select(options.names)
    adapters = open_adapters(context, publishes=True)
    with context.runners.ended_with_us():
        decided, done = make(recipes, adapters, force=options.force, broken=broken)
    where = context.registry.describe()
    if options.json:
        emit({**plan_command.to_json(decided), "registry": where, "made": [to_json(made) for made in done]})
    else:
        for kept in decided.kept:
            say(f"unchanged  {kept.recipe.name} ({kept.arch}): {kept.why}")
        for made in done:
            _show(made, where, notes=options.verbose)
    errors = [stuck.error for stuck in decided.stuck] + [made.error for made in done if made.error]
    for error in errors:
        fail(error)
    return errors[0].exit_code if errors else 0


def to_json(made: Made) -> dict[str, Any]:
    """Return the outcome of one job as a JSON object."""
    return {
        "recipe": made.job.recipe.name,
        "arch": made.job.arch,
        "reasons": list(made.job.reasons),
        "seconds": made.seconds,
        "tests": made.report.summary() if made.report else None,
        "findings": [finding.to_json() for finding in made.report.findings] if made.report else None,
        "release": made.release.to_json() if made.release else None,
        "unchanged": made.unchanged,
        "error": made.error.what if made.error else None,
    }


def _show(made: Made, where: str, *, notes: bool) -> None:
    seconds = ", ".join(f"{stage} {span:.1f} s" for stage, span in made.seconds.items())
    reasons = "; ".join(made.job.reasons)
    if made.release is not None and made.unchanged:
        tag = made.release.tag
        why = f"rebuilt with the contents of {tag}" if made.candidate else f"{tag} already uses it"
        say(f"unchanged  {made.job.title}: {reasons}; {why}" + (f" ({seconds})" if seconds else ""))
        return
    show_findings(made.job.recipe.name, made.report.findings if made.report else (), notes=notes)
    if made.release is None or made.report is None:
        say(f"failed     {made.job.title}: {'; '.join(made.job.reasons)} ({seconds or 'not started'})")
        return
    size = readable_size(made.release.sif.size)
    say(f"published  {made.job.title}: {'; '.join(made.job.reasons)}")
    say(f"           {where}/{made.job.recipe.name}:{made.release.tag}")
    say(f"           {made.release.digest}, {size}; {made.report.summary()}; {seconds}")

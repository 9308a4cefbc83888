"""`singfactory test`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from factory.check import check
from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.findings import show as show_findings
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say
from factory.errors import FactoryError, NotFound, TestsFailed, UsageError
from factory.make.adapters import Adapters
from factory.pull.pull import pull
from factory.recipes.model import Recipe
from factory.records import candidate
from factory.records import report as reports
from factory.records.findings import summary
from factory.records.inputs import Inputs, gather
from factory.records.report import TestReport


@dataclass(frozen=True)
class TestOptions(CommonOptions):
    """Options of `singfactory test`."""

    image: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument("--image", metavar="REF|FILE", help="test this image, not the candidate")
    parser.add_argument("--gpu", action="store_true", help="fail GPU tests on a machine without a GPU")
    parser.add_argument("--tmpdir", metavar="DIR", help="folder for temporary files, on a local disk")
    common_arguments(parser, TestOptions, registry=True, store=True, json=True)


def run(options: TestOptions) -> int:
    """Run the tests, and save each report next to its candidate. Returns 7 if a test failed.

    A recipe that cannot be tested does not stop the others. Returns the exit code of the first failure.
    """
    context = Context(options)
    if options.image and len(options.names) > 1:
        raise UsageError("--image takes one recipe", fix="name one recipe: its tests run on the image")
    adapters = open_adapters(context)
    reports, code = [], 0
    for recipe in context.recipes.with_bases(options.names):
        if recipe.name not in options.names:
            continue
        try:
            report = _test(recipe, context, adapters, options.image)
        except FactoryError as error:
            failed = fail(error)
            code = code or failed
            continue
        reports.append(report)
        code = code or (TestsFailed.exit_code if report.failed or report.blocking else 0)
        if not options.json:
            show(report, notes=options.verbose)
    if options.json:
        emit([report.to_json() for report in reports])
    return code


def _test(recipe: Recipe, context: Context, adapters: Adapters, named: str | None) -> TestReport:
    if named:
        image = _image(context, named)
        return check.check(recipe, image, None, adapters.check_place(), adapters.progress)
    made = candidate.load(adapters.candidates, recipe.name, context.arch)
    now = gather(recipe, made.arch, made.base_digest, made.engine, Inputs(made.parts).images)
    if changed := now.changed(made.parts):
        adapters.progress.note(f"{recipe.name} has changed since it was built: {', '.join(changed)}")
    last = reports.last_seconds(made.folder, recipe.name)
    found = check.check(recipe, made.image, made.sif.digest, adapters.check_place(), adapters.progress, seconds=last)
    found.save(made.folder)
    return found


def show(report: TestReport, *, notes: bool = False) -> None:
    """Print the findings, then one line per test; the last lines of its output if it failed."""
    show_findings(report.recipe, report.findings, notes=notes)
    for result in report.results:
        why = f": {result.why}" if result.why else ""
        say(f"{result.outcome:9} {report.recipe} / {result.name} ({result.seconds:.1f} s){why}")
        if result.outcome == "failed":
            for line in (result.stdout + result.stderr).splitlines()[-20:]:
                say(f"    {line}")
    words = summary(report.findings)
    say(f"{report.recipe}: {report.summary()}" + (f"; readiness: {words}" if words else ""))


def _image(context: Context, text: str) -> Path:
    """Return the path of a SIF file, or of a stored image, which is pulled if needed."""
    if text.endswith(".sif") or ("/" in text and Path(text).is_file()):
        if not Path(text).is_file():
            raise NotFound(f"no such image: {text}")
        return Path(text).resolve()
    reference = context.reference(text)
    registry = context.registry_of(reference)
    return pull(reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress).path

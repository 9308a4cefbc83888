"""`singfactory test`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from factory.check import check
from factory.cli import gpu_tests
from factory.cli.adapters import open_adapters
from factory.cli.context import Context, common_arguments
from factory.cli.findings import show as show_findings
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say
from factory.errors import FactoryError, NotFound, TestsFailed, UsageError
from factory.make.adapters import Adapters
from factory.make.release_tests import Tested
from factory.oci.names import recipe_name
from factory.pull.pull import pull
from factory.recipes.document import RUNNERS
from factory.recipes.model import Recipe
from factory.records import candidate
from factory.records import report as reports
from factory.records.findings import summary
from factory.records.inputs import Inputs, gather
from factory.records.report import TestReport


@dataclass(frozen=True)
class TestOptions(CommonOptions):
    """Options of `singfactory test`. untested: words of a GPU's model, '' for any; None if it is not given."""

    image: str | None
    untested: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME|REF", nargs="*", help="recipes; with --gpu also published images")
    parser.add_argument("--image", metavar="REF|FILE", help="test this image, not the candidate")
    parser.add_argument(
        "--gpu", action="store_true", help="run the GPU tests, or fail; attach the report to a published image"
    )
    parser.add_argument("--runner", choices=RUNNERS, help="with --gpu: slurm tests the published image on a GPU node")
    parser.add_argument(
        "--untested",
        metavar="MODEL",
        nargs="?",
        const="",
        help="with --gpu: all newest releases that were never tested on a GPU (of this model, such as H100)",
    )
    parser.add_argument("--tmpdir", metavar="DIR", help="folder for temporary files, on a local disk")
    common_arguments(parser, TestOptions, registry=True, store=True, json=True)


def run(options: TestOptions) -> int:
    """Run the tests, and save each report next to its candidate. Returns 7 if a test failed.

    A recipe that cannot be tested does not stop the others. Returns the exit code of the first failure.
    """
    context = Context(options)
    _require_fitting(options)
    adapters = open_adapters(context)
    names = [_recipe(context, options, text) for text in options.names]
    recipes = {recipe.name: recipe for recipe in context.recipes.with_bases(names)}
    texts = options.names
    if options.untested is not None:
        texts = list(gpu_tests.untested(context, adapters, names, options.untested))
        if not texts:
            context.progress.note("no release of a recipe with GPU tests is untested on such a GPU")
    rows, code = [], 0
    for text in sorted(set(texts)):
        name = context.reference(text).name
        recipe = recipes.get(name) or context.recipes.named(name)
        try:
            report, tested = _report(recipe, text, context, adapters)
        except FactoryError as error:
            failed = fail(error)
            code = code or failed
            continue
        rows.append(_row(report, tested))
        code = code or (TestsFailed.exit_code if report.failed or report.blocking else 0)
        if not options.json:
            show(report, notes=options.verbose)
            if tested is not None:
                say(f"{tested}; report attached")
    if options.json:
        emit(rows)
    return code


def _require_fitting(options: TestOptions) -> None:
    """Raise UsageError for options that do not go together."""
    if options.image and len(options.names) != 1:
        raise UsageError("--image takes one recipe", fix="name one recipe: its tests run on the image")
    if not options.gpu and (options.runner or options.untested is not None):
        option = "--runner" if options.runner else "--untested"
        raise UsageError(f"{option} is for tests on a GPU", fix=f"singfactory test --gpu {option} …")
    if options.image and (options.runner or options.untested is not None):
        raise UsageError(
            "--image cannot be tested through SLURM",
            why="only published images run there, and their reports are attached to them",
            fix="name the published image: singfactory test NAME:TAG --gpu --runner slurm",
        )
    if not options.names and options.untested is None:
        raise UsageError("test needs a recipe", fix="singfactory test NAME")


def _recipe(context: Context, options: TestOptions, text: str) -> str:
    """Return the recipe that an argument names: a published image with --gpu, else the recipe itself."""
    if options.gpu:
        return context.reference(text).name
    name = text.partition("@")[0].partition(":")[0]
    if recipe_name(name) == text:
        return name
    context.reference(text)
    fix = f"singfactory test {name} --image {text}"
    raise UsageError(f"{text} is not a recipe", why="without --gpu, candidates are tested", fix=fix)


def _report(recipe: Recipe, text: str, context: Context, adapters: Adapters) -> tuple[TestReport, Tested | None]:
    """Test a candidate or the image of --image; with --gpu, a published image."""
    options = context.options
    assert isinstance(options, TestOptions)  # noqa: S101 - for the type checker
    if options.gpu and not options.image:
        published = options.runner == "slurm" or options.untested is not None
        release = gpu_tests.release_to_test(context, adapters, text, published=published)
        if release is not None:
            tests = gpu_tests.GpuTests(context, adapters, slurm=options.runner == "slurm")
            tested = tests.test(recipe, release)
            return tested.report, tested
    return _test(recipe, context, adapters, options.image), None


def _row(report: TestReport, tested: Tested | None) -> dict[str, object]:
    if tested is None:
        return report.to_json()
    return {**report.to_json(), "release": f"{tested.release.recipe}@{tested.release.digest}"}


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

"""`singfactory test`."""

from __future__ import annotations

import argparse
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.errors import NotFound, TestsFailed, UsageError
from factory.inputs import gather
from factory.report import TestReport


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="recipes")
    parser.add_argument("--image", metavar="REF|FILE", help="test this image instead of the candidate")
    parser.add_argument("--gpu", action="store_true", help="GPU tests must run: without a GPU they fail")
    parser.add_argument("--tmpdir", metavar="DIR", help="a folder on a local disk for temporary files")
    common_arguments(parser, registry=True, store=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Run the tests; exit 7 when one failed. Reports are kept beside each candidate."""
    from factory import candidate, check  # noqa: PLC0415

    context = Context(options)
    if options.image and len(options.names) > 1:
        raise UsageError("--image takes one recipe", fix="name the recipe whose tests to run on it")
    works = context.works
    reports = []
    for recipe in context.recipes(options.names):
        if recipe.name not in options.names:
            continue
        if options.image:
            folder, image, expected = None, _image(context, options.image), None
        else:
            made = candidate.load(works.candidates, recipe.name, context.arch)
            folder, image, expected = made.folder, made.image, made.sif.digest
            if changed := gather(recipe, made.arch, made.base_digest, made.engine).changed(made.parts):
                works.progress.note(f"{recipe.name} was changed since it was built: {', '.join(changed)}")
        report = check.check(recipe, image, expected, works.check_place(), works.progress)
        if folder is not None:
            report.save(folder)
        reports.append(report)
        if not options.json:
            show(report)
    if options.json:
        emit([report.to_json() for report in reports])
    return TestsFailed.exit_code if any(report.failed for report in reports) else 0


def show(report: TestReport) -> None:
    """One line a test; the output of those that failed below it."""
    for result in report.results:
        why = f": {result.why}" if result.why else ""
        print(f"{result.outcome:9} {report.recipe} / {result.name} ({result.seconds:.1f} s){why}")
        if result.outcome == "failed":
            for line in (result.stdout + result.stderr).splitlines()[-20:]:
                print(f"    {line}")
    print(f"{report.recipe}: {report.summary()}")


def _image(context: Context, text: str) -> Path:
    """A SIF by path, or by reference out of the store, pulled when it is not there."""
    if text.endswith(".sif") or ("/" in text and Path(text).is_file()):
        if not Path(text).is_file():
            raise NotFound(f"there is no image {text}")
        return Path(text).absolute()
    from factory.names import Reference  # noqa: PLC0415
    from factory.pull import pull  # noqa: PLC0415

    reference = Reference.parse(text)
    registry = context.registry_of(reference)
    return pull(reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress).path

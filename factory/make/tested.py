"""Test reports of candidates: run the tests here, or read what the job that built the image wrote."""

from __future__ import annotations

from factory.check.check import check, require_passed
from factory.errors import NotFound, TestsFailed
from factory.make.adapters import Adapters
from factory.recipes.model import Recipe
from factory.records import report as reports
from factory.records.candidate import Candidate
from factory.records.report import TestReport


def test_one(recipe: Recipe, made: Candidate, adapters: Adapters) -> TestReport:
    """Test a candidate and save the report next to it. Raises TestsFailed after saving it."""
    last = reports.last_seconds(made.folder, recipe.name)
    report = check(recipe, made.image, made.sif.digest, adapters.check_place(), adapters.progress, seconds=last)
    report.save(made.folder)
    require_passed(report, made.folder)
    return report


def report_of(recipe: Recipe, made: Candidate) -> TestReport:
    """Return another machine's report about a candidate. Raises NotFound, TestsFailed, IntegrityFailure."""
    report = reports.load(made.folder, recipe.name)
    if report.sif_digest != made.sif.digest:
        raise TestsFailed(
            f"{recipe.name} has not been tested since it was built",
            why=f"tested {report.sif_digest}, built {made.sif.digest}",
            fix=f"singfactory make {recipe.name}",
        )
    require_passed(report, made.folder)
    return report


def require_no_failure(recipe: Recipe, made: Candidate) -> None:
    """Raise TestsFailed if a report says that these bytes failed a test. An untested candidate is accepted."""
    try:
        report = reports.load(made.folder, recipe.name)
    except NotFound:
        return
    if report.sif_digest == made.sif.digest:
        require_passed(report, made.folder)

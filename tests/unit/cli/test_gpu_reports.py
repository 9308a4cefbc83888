"""What users see of later tests on GPUs: show, list and pull, of reports that are attached to a release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, TestsFailed, UsageError
from factory.make import release_tests
from factory.oci.digest import Digest
from factory.publish import published
from factory.publish.attach import attach_report
from factory.publish.publish import Origin, publish
from factory.recipes.model import Recipe
from factory.records import catalog
from factory.records import report as reports
from factory.records.release import Release
from factory.records.report import TestReport, TestResult
from tests.unit.cli.cluster import SIF, Cluster
from tests.unit.parts import QUIET, candidate, report_of, write_recipe

GPU = '[run]\ngpu = "nvidia"\n[[test]]\nname = "cuda"\nrun = "nvidia-smi"\ngpu = true'
PASSED = TestResult("starts", "passed", 0.1), TestResult("cuda", "passed", 0.2)
UNTESTED = TestResult("starts", "passed", 0.1), TestResult("cuda", "untested", 0.0, "no GPU on this machine")
H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"


class Place:
    """A release of a GPU image that was published on a machine without a GPU."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.recipe: Recipe = write_recipe(folder / "recipes", more=GPU)
        made = candidate(folder / "candidates", self.recipe, SIF)
        self.report: TestReport = report_of(made, *UNTESTED)
        self.release: Release = publish(
            self.recipe, made, self.report, registry=self.cluster.registry, origin=Origin("c0ffee"), progress=QUIET
        )

    def on(self, model: str, day: str, *results: TestResult, driver: str = "550.54.15") -> TestReport:
        """A report from a machine with this GPU."""
        return replace(
            self.report,
            gpu="nvidia",
            gpu_model=model,
            driver=driver,
            started=f"2026-11-{day}T10:00:00Z",
            results=results or PASSED,
        )

    def test(self, report: TestReport) -> None:
        """What `test --gpu` does once the tests have run."""

        def run(_recipe: Recipe, _image: Path, digest: Digest) -> TestReport:
            assert digest == self.release.sif.digest
            return report

        release_tests.test_release(
            self.recipe, self.release, Path("x"), run, registry=self.cluster.registry, progress=QUIET
        )

    def line(self) -> str:
        (line,) = [line for line in self.cluster.ok("show", "tool").out.splitlines() if line.startswith("gpu ")]
        return line.split(None, 1)[1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_release_becomes_tested_on_a_gpu(place: Place) -> None:
    ok = place.cluster.ok
    assert place.line() == "untested on GPU"
    assert ok("list").out.endswith("a tool [untested on GPU]\n")
    assert "tool:1.0-1: untested on GPU\n" in ok("pull", "tool").err
    place.test(place.on(H100, "28"))
    words = f"tested on {H100}, driver 550.54.15, 2026-11-28 (2 passed)"
    assert place.line() == words
    assert ok("list").out.endswith(f"a tool [tested on {H100}]\n")
    assert f"tool:1.0-1: {words}\n" in ok("pull", "tool").err
    facts = {"model": H100, "driver": "550.54.15", "tested": "2026-11-28T10:00:00Z", "passed": 2, "failed": []}
    shown = ok("show", "tool", "--json").json()
    assert (shown["gpu_tests"], len(shown["test_reports"])) == ([facts], 2)
    assert shown["tested"] == "1 passed; untested: cuda (no GPU on this machine)"
    assert ok("pull", "tool", "--json").json()["gpu_tests"] == [facts]
    assert ok("list", "--json").json()[0]["releases"][0]["gpu_tests"] == [facts]


def test_the_newest_report_of_each_model_counts(place: Place) -> None:
    failed = TestResult("starts", "passed", 0.1), TestResult("cuda", "failed", 0.2, "exit status 1, expected 0")
    place.test(place.on(A100, "27", *failed))
    place.test(place.on(H100, "28", *failed))
    place.test(place.on(H100, "29", driver="560.1"))
    place.test(place.on(H100, "26", *failed))  # by a clock that is behind, or a run that took long
    assert place.line() == (
        f"tested on {H100}, driver 560.1, 2026-11-29 (2 passed); "
        f"failed on {A100}, driver 550.54.15, 2026-11-27 (cuda; 1 passed)"
    )
    assert f"[tested on {H100}; failed on {A100}]" in place.cluster.ok("list").out


@pytest.mark.parametrize("results", [(), UNTESTED])
def test_tests_that_found_no_gpu_attach_nothing(place: Place, results: tuple[TestResult, ...]) -> None:
    report = replace(place.on("", "28", *results), gpu="nvidia" if results else "")
    with pytest.raises(TestsFailed) as caught:
        place.test(report)
    assert caught.value.lines()[0] == "tool:1.0-1 is untested on GPU: nothing was attached to it"
    assert place.line() == "untested on GPU"
    assert len(place.cluster.ok("show", "tool", "--json").json()["test_reports"]) == 1


def test_a_checkout_with_other_tests_is_refused_with_the_commit_that_has_the_right_ones(place: Place) -> None:
    (place.recipe.folder / "tests").mkdir(exist_ok=True)
    (place.recipe.folder / "tests/new.py").write_text("print()")
    with pytest.raises(UsageError) as caught:
        release_tests.require_same_tests(place.recipe, place.release, place.cluster.registry)
    assert caught.value.lines()[2] == "git checkout c0ffee, then run the same command again"


def test_a_report_about_another_image_is_not_attached(place: Place) -> None:
    other = replace(place.on(H100, "28"), sif_digest=Digest.of(b"other"))
    with pytest.raises(IntegrityFailure):
        attach_report(place.release, other, "", registry=place.cluster.registry, progress=QUIET)


def test_a_report_keeps_its_gpu_on_the_way_through_json(place: Place) -> None:
    report = replace(place.on(H100, "28"), site="here")
    place.test(report)
    attached, first = reports.of_release(place.release, place.cluster.registry)
    assert (attached, first) == (report, place.report)


def test_the_next_release_of_a_recipe_keeps_what_is_known_of_the_others(place: Place, tmp_path: Path) -> None:
    place.test(place.on(H100, "28"))
    made = candidate(tmp_path / "more", place.recipe, SIF + b"2")
    registry = place.cluster.registry
    publish(place.recipe, made, report_of(made, *UNTESTED), registry=registry, origin=Origin(), progress=QUIET)
    first, second = catalog.read(registry).entry("tool").releases
    assert ([test.model for test in first.gpu_tests], second.gpu_tests) == ([H100], ())
    assert len(published.builds(registry, "tool")) == 2

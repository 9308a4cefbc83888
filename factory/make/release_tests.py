"""Tests of a published release: the tests that it was published with, and what becomes of their report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import TestsFailed, UsageError
from factory.io.progress import Progress
from factory.oci.digest import Digest
from factory.publish.attach import TESTS, attach_report
from factory.recipes.model import Recipe
from factory.records.gpu_tests import GpuTest
from factory.records.inputs import Inputs, gather, tests_of
from factory.records.release import TEST_REPORT, Release
from factory.records.report import TestReport
from factory.registry.protocol import Manifest, Registry

_REVISION = "org.opencontainers.image.revision"
_NOT_OF_TESTS = frozenset({"rules", "engine", "base"})  # inputs that say nothing of a recipe's own files

RunTests = Callable[[Recipe, Path, Digest], TestReport]
"""Runs a recipe's tests on an image with this digest, on a machine with a GPU; raises TestsFailed if it has none."""


@dataclass(frozen=True)
class Tested:
    """A release, the report of its tests on a GPU, and what the report says. The report is attached to the release."""

    release: Release
    report: TestReport
    found: GpuTest

    def __str__(self) -> str:
        return f"{self.release.recipe}:{self.release.tag}: {self.found.in_words()}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        release = f"{self.release.recipe}@{self.release.digest}"
        return {"release": release, "tag": str(self.release.tag), **self.found.to_json()}


def wants_gpu(recipe: Recipe) -> bool:
    """Return whether a recipe has tests that need a GPU."""
    return any(test.gpu for test in recipe.tests)


def untested_on(release: Release, model: str) -> bool:
    """Return whether a release has no tests on a GPU whose model has all these words; '' for any model."""
    words = model.lower().split()
    return not any(all(word in test.model.lower() for word in words) for test in release.gpu_tests)


def test_release(
    recipe: Recipe, release: Release, image: Path, run: RunTests, *, registry: Registry, progress: Progress
) -> Tested:
    """Run the tests of a release on a GPU, and attach the report to it. Failed tests are in the report, not raised.

    Raises UsageError if this checkout has other tests, TestsFailed if they did not run on a GPU: then nothing is
    attached.
    """
    tests = require_same_tests(recipe, release, registry)
    report = run(recipe, image, release.sif.digest)
    found = report.gpu_test()
    if found is None:
        why = f"untested: {report.untested[0].name}" if report.untested else "no GPU on the machine that ran the tests"
        raise still_untested(release, why)
    if tests_of(recipe) != tests:
        raise TestsFailed(
            f"the report is not attached to {release.recipe}:{release.tag}",
            why="the tests in this checkout changed while they ran",
            fix="run the same command again",
        )
    attach_report(release, report, str(tests), registry=registry, progress=progress)
    return Tested(release, report, found)


def still_untested(release: Release, why: str) -> TestsFailed:
    """Return the error for tests that found no GPU."""
    name = f"{release.recipe}:{release.tag}"
    return TestsFailed(
        f"{name} is untested on GPU: nothing was attached to it",
        why=why,
        fix=f"run it on a machine with a GPU, or let SLURM: singfactory test {name} --gpu --runner slurm",
    )


def require_same_tests(recipe: Recipe, release: Release, registry: Registry) -> Digest:
    """Return the digest of the recipe's tests. Raises UsageError if the release was published with other tests.

    Releases of older versions do not say which tests they had: then the recipe's inputs must be the same.
    """
    if not wants_gpu(recipe):
        raise UsageError(
            f"{recipe.name} has no tests that need a GPU",
            why="none of its [[test]] in recipe.toml says gpu = true",
            fix=f"singfactory test {recipe.name}",
        )
    now, then = tests_of(recipe), _published_with(release, registry)
    if then in (str(now), "") and (then or not _changed(recipe, release)):
        return now
    manifest = Manifest.read(registry.manifest(release.recipe, str(release.digest)))
    revision = manifest.annotations.get(_REVISION, "")
    known = revision if revision.isalnum() else "the commit that published it"
    raise UsageError(
        f"this checkout does not have the tests that {release.recipe}:{release.tag} was published with",
        why="[[test]] or [run] in recipe.toml, or a file in tests, is different"
        if then
        else f"changed: {', '.join(_changed(recipe, release))}",
        fix=f"git checkout {known}, then run the same command again",
    )


def _published_with(release: Release, registry: Registry) -> str:
    """Return the digest of the tests in the first report of a release; '' if no report says one."""
    attached = registry.referrers(release.recipe, release.digest, TEST_REPORT)
    noted = [one.annotations for one in attached if TESTS in one.annotations]
    if not noted:  # not every registry lists annotations
        manifests = (Manifest.read(registry.manifest(release.recipe, str(one.digest))) for one in attached)
        noted = [manifest.annotations for manifest in manifests if TESTS in manifest.annotations]
    first = min(noted, key=lambda one: one.get("org.opencontainers.image.created", ""), default={})
    return first.get(TESTS, "")


def _changed(recipe: Recipe, release: Release) -> Iterable[str]:
    now = gather(
        recipe, release.arch, release.parts.get("base", ""), release.engine, images=Inputs(release.parts).images
    )
    return [name for name in now.changed(release.parts) if name not in _NOT_OF_TESTS]

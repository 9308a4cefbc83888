"""Check an image: what in it will not work on a cluster, and its tests, run as its users run it.

Tests run unprivileged, on the read-only SIF, with time limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from factory.check.readiness import readiness
from factory.check.readiness.running import Running
from factory.check.tail import Tail
from factory.engine import gpus
from factory.engine.binds import Bind
from factory.engine.engine import HOME_INSIDE, Engine
from factory.engine.orders import Command
from factory.errors import IntegrityFailure, TestsFailed
from factory.io import files, plain, search
from factory.io.progress import Progress, step
from factory.oci.digest import Digest
from factory.recipes.inside import LeavesFolderError, folder_inside
from factory.recipes.model import Place, Problem, ProblemError, Recipe, TestSpec
from factory.records.findings import Finding
from factory.records.report import TestReport, TestResult
from factory.sif.own_test import has_own_test

_OWN_TEST = TestSpec(name="%test", run="")
_SHOWN_LINES = 8
_PLAIN = re.compile(r"[/$][A-Za-z0-9/._+-]+", re.ASCII)
_LEAST_SECONDS = 1.0  # minimum for matching the output of a test that used up its time


@dataclass(frozen=True)
class CheckPlace:
    """The environment of tests. scratch: on a local disk; require_gpu: a GPU test fails if there is no GPU.

    site: the cluster's name for reports, '' to leave it out.
    """

    engine: Engine
    scratch: Path
    require_gpu: bool = False
    site: str = ""


def check(
    recipe: Recipe,
    image: Path,
    expected: Digest | None,
    place: CheckPlace,
    progress: Progress,
    *,
    seconds: float | None = None,
) -> TestReport:
    """Run the readiness checks, %test and every [[test]] of a recipe on an image.

    The image is hashed first, and the report records its digest. expected: the digest it must have. Findings and
    failed tests are in the report, not raised. seconds: how long the tests took last time. Raises IntegrityFailure if
    the image has another digest.
    """
    with step(progress, f"hash {image.name}", image.stat().st_size) as advance:
        digest, _ = plain.digest_of(image, advance)
    if expected is not None and digest != expected:
        raise IntegrityFailure(
            f"{image} is not the image that was built",
            why=f"expected {expected}, got {digest}",
            fix=f"singfactory build {recipe.name}",
        )
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with step(progress, f"check the files in {image.name}"):
        running = Running(image, place.engine, place.scratch)
        findings = readiness.examine(recipe, image, (running.check,))
    wanted = recipe.tests
    if has_own_test(image):
        wanted = (_OWN_TEST, *wanted)
    results = []
    with step(progress, f"test {recipe.name}", expected=seconds):
        for test in wanted:
            progress.line(f"test {test.name}")
            results.append(_run(recipe, image, test, place))
    gpu = gpus.describe(place.engine.host.gpu, place.engine.base_env)
    return TestReport(
        recipe.name,
        digest,
        place.engine.label,
        place.engine.host.gpu,
        started,
        tuple(results),
        findings,
        gpu_model=gpu.model,
        driver=gpu.driver,
        site=place.site if gpu.kind else "",
    )


def require_passed(report: TestReport, folder: Path) -> None:
    """Raise TestsFailed with the output of the first failed test, else for the first finding that is an error."""
    if not report.failed:
        _require_ready(report)
        return
    first = report.failed[0]
    shown = [line for text in (first.stdout, first.stderr) for line in text.splitlines() if line.strip()]
    names = ", ".join(result.name for result in report.failed)
    raise TestsFailed(
        f"{report.recipe}: {len(report.failed)} of {len(report.results)} tests failed: {names}",
        why=f"{first.name}: {first.why}",
        fix=f"the full output is in {folder / 'report.json'}",
        detail=shown[-_SHOWN_LINES:],
    )


def _require_ready(report: TestReport) -> None:
    if report.blocking:
        first = report.blocking[0]
        raise TestsFailed(
            f"{report.recipe} will not work on a cluster: {first}",
            why=first.effect,
            fix=f'{first.remedy}; or, in recipe.toml: [checks] ignore = {{ {_key(first)} = "why it does not matter" }}',
            detail=[str(finding) for finding in report.blocking[1:_SHOWN_LINES]],
        )


def _key(finding: Finding) -> str:
    """Return the key under ``ignore`` for one finding: with its place, where that needs no escapes in TOML."""
    return f'"{finding.code}:{finding.place}"' if _PLAIN.fullmatch(finding.place) else finding.code


def _run(recipe: Recipe, image: Path, test: TestSpec, place: CheckPlace) -> TestResult:
    host = place.engine.host
    gpu = recipe.run.gpu if recipe.run.gpu != "none" else "nvidia"
    if test.gpu and host.gpu != gpu:
        why = f"no {gpu} GPU on this machine" if host.gpu else "no GPU on this machine"
        return TestResult(test.name, "failed" if place.require_gpu else "untested", 0.0, why)
    stdout, stderr = Tail(), Tail()
    with files.temporary_folder(place.scratch, "test") as folder:
        home, scratch = files.make_folder(folder / "home"), files.make_folder(folder / "tmp")
        if host.is_root:
            files.give_to_nobody(folder, home, scratch)
        finished = place.engine.run(
            Command(
                image=image,
                arguments=("/bin/sh", "-c", test.run) if test.run else (),
                home=home,
                scratch=scratch,
                timeout=test.timeout,
                binds=_tests_of(recipe),
                gpu=host.gpu if test.gpu or host.gpu == recipe.run.gpu else "",
                env={**gpus.chosen(place.engine.base_env), **recipe.run.env},
            ),
            stdout.take,
            stderr.take,
        )
    out, err = stdout.text(), stderr.text()
    if finished.timed_out:
        why = f"it did not end within {test.timeout}"
    elif finished.status != test.exit:
        why = f"exit status {finished.status}, expected {test.exit}"
    else:
        why = _wrong_output(test, out, test.timeout.total_seconds() - finished.seconds)
    return TestResult(test.name, "failed" if why else "passed", finished.seconds, why, out, err)


def _tests_of(recipe: Recipe) -> tuple[Bind, ...]:
    """Return the bind of the recipe's folder `tests`. Raises ProblemError for a link out of the recipe's folder.

    The engine would follow such a link to any folder on this machine. Links further down are resolved inside the
    container and cannot leave it.
    """
    try:
        tests = folder_inside(recipe.folder.resolve(), "tests")
    except LeavesFolderError as error:
        place = Place(recipe.folder / "tests")
        raise ProblemError(Problem(place, f"tests {error}", "put the tests themselves into the recipe")) from error
    return (Bind(tests, f"{HOME_INSIDE}/tests"),) if tests is not None else ()


def _wrong_output(test: TestSpec, out: str, seconds: float) -> str:
    """Return what is wrong with a test's output, or ''. seconds: the rest of the test's time limit."""
    if test.stdout and test.stdout not in out:
        return f"{test.stdout!r} is not in its output"
    if not test.stdout_regex:
        return ""
    matches = search.found(test.stdout_regex, out, max(seconds, _LEAST_SECONDS))
    if matches is None:
        return f"matching its output against {test.stdout_regex!r} took longer than {test.timeout}: simplify it"
    return "" if matches else f"its output does not match {test.stdout_regex!r}"

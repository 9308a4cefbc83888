from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from factory.check.check import CheckPlace, check, require_passed
from factory.errors import IntegrityFailure, TestsFailed
from factory.oci.digest import Digest
from factory.recipes.model import Recipe, TestSpec
from factory.records.findings import Finding
from factory.records.report import TestReport, TestResult
from tests.unit.delta.images import with_metadata
from tests.unit.parts import CREATED, ENGINE, QUIET, Recorded, stand_in_engine, write_recipe


def checked(
    tmp_path: Path,
    *tests: TestSpec,
    gpu: str = "",
    wants: str = "none",
    own: str = "#!/bin/sh\n",
    require: bool = False,
) -> TestReport:
    recipe = write_recipe(tmp_path / "recipes", more=f'[run]\ngpu = "{wants}"\nenv = {{ A = "from run" }}')
    engine = stand_in_engine(tmp_path / "engine", gpu=gpu)
    place = CheckPlace(engine, tmp_path / "scratch", require_gpu=require)
    return check(replace(recipe, tests=tests), image(tmp_path, own), None, place, QUIET)


def image(tmp_path: Path, own: str = "#!/bin/sh\n") -> Path:
    path = tmp_path / "image.sif"
    path.write_bytes(with_metadata({"test": own}))
    return path


def test_the_report_names_the_bytes_that_were_tested(tmp_path: Path) -> None:
    report = checked(tmp_path, TestSpec("one", "echo hello; echo trouble >&2"))
    tested = Digest.of((tmp_path / "image.sif").read_bytes())
    assert (report.recipe, report.sif_digest, report.engine) == ("tool", tested, ENGINE)
    (result,) = report.results
    assert (result.outcome, result.why, result.stdout, result.stderr) == ("passed", "", "hello\n", "trouble\n")


def test_an_image_with_another_digest_is_not_tested(tmp_path: Path) -> None:
    place = CheckPlace(stand_in_engine(tmp_path / "engine"), tmp_path / "scratch")
    recipe: Recipe = write_recipe(tmp_path / "recipes")
    with pytest.raises(IntegrityFailure, match="is not the image that was built"):
        check(recipe, image(tmp_path), Digest.of(b"other"), place, QUIET)
    assert not (tmp_path / "scratch").exists()
    tested = Digest.of(image(tmp_path).read_bytes())
    seen = Recorded()
    assert check(recipe, image(tmp_path), tested, place, seen, seconds=7).sif_digest == tested
    size = image(tmp_path).stat().st_size
    checks = ("check the files in image.sif", None, 0)
    assert seen.steps == [("hash image.sif", size, size), checks, ("test tool", None, 0)]
    assert seen.expected["test tool"] == 7


@pytest.mark.parametrize(
    ("test", "why"),
    [
        (TestSpec("t", "exit 3"), "exit status 3, expected 0"),
        (TestSpec("t", "exit 3", exit=3), ""),
        (TestSpec("t", "true", exit=3), "exit status 0, expected 3"),
        (TestSpec("t", "echo 2.1.2", stdout="2.1"), ""),
        (TestSpec("t", "echo 2.0", stdout="2.1"), "'2.1' is not in its output"),
        (TestSpec("t", "echo 2.1 >&2", stdout="2.1"), "'2.1' is not in its output"),
        (TestSpec("t", "echo x; echo v2", stdout_regex="^v[0-9]$"), ""),
        (TestSpec("t", "echo xv2", stdout_regex="^v[0-9]$"), "its output does not match '^v[0-9]$'"),
        (TestSpec("t", "sleep 60", timeout=timedelta(seconds=0.5)), "it did not end within 0:00:00.500000"),
    ],
)
def test_a_tests_expectations_decide_its_outcome(tmp_path: Path, test: TestSpec, why: str) -> None:
    (result,) = checked(tmp_path, test).results
    assert (result.outcome, result.why) == ("failed" if why else "passed", why)


def test_a_failed_test_does_not_stop_later_tests(tmp_path: Path) -> None:
    report = checked(tmp_path, TestSpec("one", "exit 1"), TestSpec("two", "true"))
    assert [result.outcome for result in report.results] == ["failed", "passed"]
    assert report.summary() == "1 passed; failed: one"


def test_the_images_own_test_comes_first(tmp_path: Path) -> None:
    report = checked(tmp_path, TestSpec("one", "true"), own="#!/bin/sh\necho own test\n")
    assert [(result.name, result.stdout) for result in report.results] == [("%test", "own test\n"), ("one", "")]


def test_the_variables_of_run_are_set_in_tests(tmp_path: Path) -> None:
    (result,) = checked(tmp_path, TestSpec("t", 'echo "$APPTAINERENV_A"', stdout="from run")).results
    assert result.outcome == "passed"


def test_only_the_end_of_a_long_output_is_kept_with_a_mark(tmp_path: Path) -> None:
    run = "i=0; while [ $i -lt 6000 ]; do echo 'a line of some forty characters, or more'; i=$((i+1)); done; echo end"
    (result,) = checked(tmp_path, TestSpec("t", run, stdout="end")).results
    assert result.outcome == "passed"
    assert result.stdout.startswith("[…]\n")
    assert result.stdout.endswith("\nend\n")
    assert len(result.stdout) <= 2 * 64 * 1024 + 4


CUDA = TestSpec("cuda", 'case "$ENGINE_OPTIONS" in *" --nv "*) echo with;; *) echo without;; esac', gpu=True)


@pytest.mark.parametrize(
    ("machine", "wants", "expected"),
    [
        ("", "nvidia", ("untested", "no GPU on this machine", "")),
        ("rocm", "nvidia", ("untested", "no nvidia GPU on this machine", "")),
        ("nvidia", "rocm", ("untested", "no rocm GPU on this machine", "")),
        ("nvidia", "nvidia", ("passed", "", "with\n")),
        ("nvidia", "none", ("passed", "", "with\n")),  # requested by the test itself
    ],
)
def test_a_gpu_test_runs_with_the_required_gpu_or_is_untested(
    tmp_path: Path, machine: str, wants: str, expected: tuple[str, str, str]
) -> None:
    (result,) = checked(tmp_path, CUDA, gpu=machine, wants=wants).results
    assert (result.outcome, result.why, result.stdout) == expected


def test_where_a_gpu_is_required_a_gpu_test_without_one_fails(tmp_path: Path) -> None:
    (result,) = checked(tmp_path, CUDA, wants="nvidia", require=True).results
    assert (result.outcome, result.why) == ("failed", "no GPU on this machine")


@pytest.mark.parametrize(("wants", "output"), [("nvidia", "with\n"), ("none", "without\n")])
def test_other_tests_get_a_gpu_only_if_run_requests_one(tmp_path: Path, wants: str, output: str) -> None:
    (result,) = checked(tmp_path, replace(CUDA, gpu=False), gpu="nvidia", wants=wants).results
    assert result.stdout == output


# --- error messages


def result(name: str, outcome: str = "failed", out: str = "", err: str = "") -> TestResult:
    assert outcome in ("failed", "passed", "untested")
    return TestResult(name, "failed" if outcome == "failed" else "passed", 0.1, "exit status 1, wanted 0", out, err)


def report(*results: TestResult) -> TestReport:
    return TestReport("tool", Digest.of(b"sif"), ENGINE, "", CREATED, results)


def test_failures_are_reported_with_the_end_of_the_first_ones_output() -> None:
    lines = "".join(f"line {number}\n\n" for number in range(12))
    with pytest.raises(TestsFailed) as caught:
        require_passed(
            report(result("a", "passed"), result("b", out=lines, err="Traceback\n"), result("c", out="not this")),
            Path("/candidates/tool-amd64"),
        )
    assert caught.value.lines() == (
        "tool: 2 of 3 tests failed: b, c",
        "b: exit status 1, wanted 0",
        "the full output is in /candidates/tool-amd64/report.json",
    )
    assert caught.value.detail == (*(f"line {number}" for number in range(5, 12)), "Traceback")
    assert caught.value.exit_code == 7


def test_an_image_that_will_not_work_on_a_cluster_is_reported_like_a_failed_test() -> None:
    first = Finding("no-shell", "error", "/bin/sh", "there is no shell /bin/sh", "nothing starts", "add one")
    second = replace(first, code="missing-bind", place="/dataset")
    findings = (replace(first, ignored="why"), replace(first, severity="warning"), first, second)
    with pytest.raises(TestsFailed) as caught:
        require_passed(replace(report(result("a", "passed")), findings=findings), Path("/candidates/tool-amd64"))
    assert caught.value.lines() == (
        "tool will not work on a cluster: no-shell: /bin/sh: there is no shell /bin/sh",
        "nothing starts",
        'add one; or, in recipe.toml: [checks] ignore = { "no-shell:/bin/sh" = "why it does not matter" }',
    )
    assert caught.value.detail == (str(second),)
    require_passed(replace(report(), findings=findings[:2]), Path())


def test_nothing_is_raised_when_nothing_failed() -> None:
    require_passed(report(), Path())
    require_passed(report(result("a", "passed"), TestResult("b", "untested", 0.0, "no GPU")), Path())

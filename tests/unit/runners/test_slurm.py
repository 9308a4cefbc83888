"""The srun command, and refusals before starting it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import process_time

import pytest

from factory.errors import BuildFailed, IntegrityFailure, NotFound, UsageError
from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.runners.local import LocalRunner
from factory.runners.protocol import BuildTask
from factory.runners.slurm import SlurmRunner, _result

DIGEST = Digest.of(b"image")
ROW = f'[\n {{\n  "recipe": "tool",\n  "arch": "amd64",\n  "sif_digest": "{DIGEST}"\n }}\n]'
STEP = 'echo "singfactory-step 7.0 node1" >&2\n'


def never() -> str:
    raise AssertionError


def task(folder: Path, *, force: bool = False) -> BuildTask[str]:
    return BuildTask("tool", "amd64", folder / "made", timedelta(minutes=90), force, never, str)


def runner(folder: Path, **env: str) -> SlurmRunner:
    return SlurmRunner(("python3", "-m", "factory.cli"), folder, {"PATH": str(folder), **env}, Silent())


def fake_srun(folder: Path, script: str) -> SlurmRunner:
    """A runner whose srun is a script, for behavior that a real one does not show on demand."""
    program = folder / "srun"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    return runner(folder, PATH=f"{folder}:{os.defpath}")


def test_local_builds_in_this_process(tmp_path: Path) -> None:
    assert LocalRunner().build(replace(task(tmp_path), build=lambda: "made")) == "made"


def test_a_job_is_requested_with_the_configured_options(tmp_path: Path) -> None:
    configured = replace(runner(tmp_path), partition="cpu", account="lab", options=("--mem=32G", "--cpus-per-task=8"))
    arguments = configured.arguments(task(tmp_path), tmp_path / "made/.token")
    assert arguments[: arguments.index("--")] == [
        "srun",
        "--mem=32G",
        "--cpus-per-task=8",
        "--partition=cpu",
        "--account=lab",
        "--time=100",
        "--job-name=singfactory-tool",
        "--nodes=1",
        "--ntasks=1",
        f"--chdir={tmp_path}",
        "--export=ALL",
        "--input=none",
        "--mpi=none",
        "--propagate=NONE",
    ]
    inner = arguments[arguments.index("python3") :]
    assert inner == [
        *("python3", "-m", "factory.cli", "build", "tool", "--runner", "local"),
        *("--output", str(tmp_path / "made"), "--json", "--verbose"),
    ]


def test_inside_a_job_a_job_step_is_requested(tmp_path: Path) -> None:
    inside = replace(runner(tmp_path, SLURM_JOB_ID="12"), partition="cpu", options=("--mem=32G",))
    arguments = inside.arguments(task(tmp_path), tmp_path / ".token")
    assert arguments[:3] == ["srun", "--overlap", "--job-name=singfactory-tool"]
    assert not [option for option in arguments if option.startswith(("--partition", "--mem=", "--time"))]


def test_force_is_passed_on(tmp_path: Path) -> None:
    assert runner(tmp_path).arguments(task(tmp_path, force=True), tmp_path)[-1] == "--force"


def test_without_srun_the_error_says_where_to_build(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as told:
        runner(tmp_path).build(task(tmp_path))
    assert told.value.lines() == (
        "cannot build tool with SLURM: srun was not found",
        "SLURM's programs are not on PATH",
        "run this on the cluster's login node, load its SLURM module, or build with --runner local",
    )


def test_the_candidate_is_collected_despite_output_of_a_prolog(tmp_path: Path) -> None:
    slurm = fake_srun(tmp_path, f"{STEP}echo welcome; echo '['; echo to the node; echo ']'\ncat <<'END'\n{ROW}\nEND\n")
    assert slurm.build(task(tmp_path)) == str(DIGEST)
    assert list((tmp_path / "made").iterdir()) == []


def test_an_image_of_another_architecture_is_refused(tmp_path: Path) -> None:
    slurm = fake_srun(tmp_path, f"{STEP}cat <<'END'\n{ROW.replace('amd64', 'arm64')}\nEND\n")
    with pytest.raises(UsageError, match="SLURM built tool for arm64 instead of amd64"):
        slurm.build(task(tmp_path))


def test_success_without_a_result_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="the build of tool on node1 ended without a result"):
        fake_srun(tmp_path, STEP).build(task(tmp_path))


@pytest.mark.slow
def test_a_candidate_that_is_not_visible_yet_is_awaited(tmp_path: Path) -> None:
    answers: list[str | Exception] = [NotFound("not yet"), "made"]

    def collect(_: Digest) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    slurm = fake_srun(tmp_path, f"{STEP}cat <<'END'\n{ROW}\nEND\n")
    assert slurm.build(replace(task(tmp_path), collect=collect)) == "made"


def test_a_broken_candidate_is_reported_as_such(tmp_path: Path) -> None:
    def broken(_: Digest) -> str:
        raise IntegrityFailure("the build record is broken")

    slurm = fake_srun(tmp_path, f"{STEP}cat <<'END'\n{ROW}\nEND\n")
    with pytest.raises(IntegrityFailure):
        slurm.build(replace(task(tmp_path), collect=broken))


def row(recipe: str = "tool") -> str:
    return f'[\n {{\n  "recipe": "{recipe}",\n  "sif_digest": "sha256:{"0" * 64}"\n }}\n]\n'


@pytest.mark.parametrize("before", ["", "[\n", "[\nnoise\n]\n", row("other"), "[\n" + "[" * 100_000 + "\n]\n", "]\n"])
def test_the_row_of_a_build_is_found_after_other_output(before: str) -> None:
    found = _result((before + row()).encode(), "tool")
    assert found is not None
    assert found["recipe"] == "tool"


def test_a_million_opening_brackets_are_parsed_once() -> None:
    started = process_time()
    assert _result(b"[\n" * 400_000 + b"]\n" * 100_000, "tool") is None
    assert process_time() - started < 2

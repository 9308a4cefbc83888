"""Submitting, finding and following jobs; SLURM's programs are scripts, for what a real one shows only by chance."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from factory.errors import BuildFailed, Busy, FactoryError, IntegrityFailure, NotFound, UsageError
from factory.oci.digest import Digest
from factory.runners import slurm_queue
from factory.runners.local import LocalRunner
from factory.runners.protocol import BuildRequest, BuildTask
from factory.runners.slurm import SlurmRunner, _groups, _result
from factory.runners.slurm_queue import ClusterFailure, JobState, Slurm
from factory.runners.slurm_state import JobRecord, load
from tests.unit.parts import Heard

DIGEST = Digest.of(b"image")
ROW = f'[\n {{\n  "recipe": "tool",\n  "arch": "amd64",\n  "sif_digest": "{DIGEST}"\n }}\n]'
GONE = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
# Runs the job at once, in place of a node, and writes its log.
SBATCH = """
for script do :; done
run=${script%/job.sh}
SLURMD_NODENAME=node1 /bin/sh "$script" >>"$run/0.log" 2>&1
echo 7
"""


def never() -> str:
    raise AssertionError


def request(folder: Path, recipe: str = "tool", *, after: str = "", minutes: int = 90) -> BuildRequest:
    return BuildRequest(recipe, "amd64", folder / "made", timedelta(minutes=minutes), force=False, after=after, key="k")


def task(folder: Path, collect: Callable[[Digest], str] = str, **changed: object) -> BuildTask[str]:
    return BuildTask(replace(request(folder), **changed), never, collect)  # type: ignore[arg-type]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def slurm(folder: Path, heard: Heard, *, build: str = "exit 1", **programs: str) -> SlurmRunner:
    """A runner whose SLURM is scripts. build: what singfactory does on the node, for sh."""
    for name, script in {"sbatch": SBATCH, "squeue": GONE, "scontrol": "exit 1", "scancel": "", **programs}.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    env = {"PATH": f"{folder}:{os.defpath}"}
    return SlurmRunner(("/bin/sh", "-c", build, "singfactory"), folder, env, heard)


def test_local_builds_in_this_process(tmp_path: Path) -> None:
    runner = LocalRunner()
    runner.queue([request(tmp_path)])
    assert not runner.queued(("tool", "amd64"))
    assert runner.build(replace(task(tmp_path), build=lambda: "made")) == "made"


def test_without_sbatch_the_error_says_where_to_build(tmp_path: Path, heard: Heard) -> None:
    runner = SlurmRunner(("true",), tmp_path, {"PATH": str(tmp_path)}, heard)
    with pytest.raises(BuildFailed) as told:
        runner.build(task(tmp_path))
    assert told.value.lines() == (
        "cannot build tool with SLURM: sbatch was not found",
        "SLURM's programs are not on PATH",
        "run this on the cluster's login node, load its SLURM module, or build with --runner local",
    )


def test_the_candidate_is_collected_and_the_record_kept_for_those_who_come_later(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, build=f"cat <<'END'\n{ROW}\nEND\n")
    assert runner.build(task(tmp_path)) == str(DIGEST)
    found = load(tmp_path / "made", "tool", "amd64")
    assert found is not None
    assert (found.job, found.collected) == ("7", True)
    assert runner.attach(task(tmp_path)) == str(DIGEST)


def test_a_result_that_nobody_has_seen_is_taken_and_a_seen_one_is_not(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, build=f"echo x >>{tmp_path}/builds; cat <<'END'\n{ROW}\nEND\n")
    runner.queue([request(tmp_path)])
    for built in (1, 2):  # the second time, the result has been seen
        assert slurm(tmp_path, heard, build=f"echo x >>{tmp_path}/builds; echo '{ROW}'").build(task(tmp_path))
        assert (tmp_path / "builds").read_text() == "x\n" * built


def test_a_forced_build_does_not_take_a_finished_one(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, build=f"echo x >>{tmp_path}/builds; echo '{ROW}'")
    runner.queue([request(tmp_path)])
    assert slurm(tmp_path, heard, build=f"echo x >>{tmp_path}/builds; echo '{ROW}'").build(task(tmp_path, fresh=True))
    assert (tmp_path / "builds").read_text() == "x\nx\n"


def test_an_image_that_failed_its_tests_is_collected(tmp_path: Path, heard: Heard) -> None:
    assert slurm(tmp_path, heard, build=f"echo singfactory: failed >&2; echo '{ROW}'; exit 7").build(
        task(tmp_path)
    ) == str(DIGEST)


def test_the_error_of_the_build_is_passed_on(tmp_path: Path, heard: Heard) -> None:
    script = "echo '    last words' >&2; echo 'singfactory: it failed' >&2; echo '[]'; exit 6"
    with pytest.raises(BuildFailed, match="it failed") as told:
        slurm(tmp_path, heard, build=script).build(task(tmp_path))
    assert told.value.detail == ("last words",)


def test_an_image_of_another_architecture_is_refused(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(UsageError, match="SLURM built tool for arm64 instead of amd64"):
        slurm(tmp_path, heard, build=f"echo '{ROW.replace('amd64', 'arm64')}'").build(task(tmp_path))


@pytest.mark.slow
def test_success_without_a_result_is_a_failure(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(BuildFailed, match="the build of tool on node1 ended without a result"):
        slurm(tmp_path, heard, build="true").build(task(tmp_path))


@pytest.mark.slow
def test_a_candidate_that_is_not_visible_yet_is_awaited(tmp_path: Path, heard: Heard) -> None:
    answers: list[str | Exception] = [NotFound("not yet"), "made"]

    def collect(_: Digest) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert slurm(tmp_path, heard, build=f"echo '{ROW}'").build(task(tmp_path, collect)) == "made"


def test_a_broken_candidate_is_reported_as_such(tmp_path: Path, heard: Heard) -> None:
    def broken(_: Digest) -> str:
        raise IntegrityFailure("the build record is broken")

    with pytest.raises(IntegrityFailure):
        slurm(tmp_path, heard, build=f"echo '{ROW}'").build(task(tmp_path, broken))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "sbatch: error: x\nsbatch: error: Batch job submission failed: Invalid partition name specified",
            "Invalid partition name specified",
        ),
        (
            "sbatch: unrecognized option '--bogus=1'\nTry \"sbatch --help\" for more information",
            "unrecognized option '--bogus=1'",
        ),
        ("", "sbatch ended with status 1"),
    ],
)
def test_a_job_that_slurm_refuses_names_the_reason_and_leaves_nothing(
    tmp_path: Path, heard: Heard, said: str, why: str
) -> None:
    runner = slurm(tmp_path, heard, sbatch=f"cat >&2 <<'END'\n{said}\nEND\nexit 1")
    with pytest.raises(UsageError) as told:
        runner.build(task(tmp_path))
    assert told.value.lines() == (
        "SLURM rejects the job that builds tool",
        why,
        "check slurm_partition, slurm_account and slurm_options in factory.toml, build.timeout in recipe.toml",
    )
    assert [path.name for path in (tmp_path / "made/.jobs").iterdir()] == []
    with pytest.raises(NotFound, match="no SLURM job of tool is known"):
        runner.attach(task(tmp_path))


def test_a_recipe_whose_base_was_refused_is_not_submitted(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, sbatch=f"echo x >>{tmp_path}/asked; exit 1")
    runner.queue([request(tmp_path, "base"), request(tmp_path, after="base"), request(tmp_path, "top", after="tool")])
    assert (tmp_path / "asked").read_text() == "x\n"
    assert [runner.queued((name, "amd64")) for name in ("base", "tool", "top")] == [True, False, False]


@pytest.mark.slow
def test_a_submission_without_an_answer_is_made_again(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_queue, "_PAUSE", 0.1)
    first = f"[ -e {tmp_path}/again ] || {{ touch {tmp_path}/again; {DOWN}; }}\n"
    runner = slurm(tmp_path, heard, build=f"echo '{ROW}'", sbatch=first + SBATCH)
    assert runner.build(task(tmp_path)) == str(DIGEST)
    assert heard.notes[0].startswith("tool: SLURM does not answer (")


def test_a_job_that_slurm_took_without_an_answer_is_not_submitted_twice(tmp_path: Path, heard: Heard) -> None:
    sbatch = f'{SBATCH}\necho x >>{tmp_path}/asked; echo "$script" >{tmp_path}/script; {DOWN}'.replace("echo 7", "")
    runner = slurm(tmp_path, heard, build=f"echo '{ROW}'", sbatch=sbatch, squeue=f'echo "12 $(cat {tmp_path}/script)"')
    assert runner.build(task(tmp_path)) == str(DIGEST)
    assert (tmp_path / "asked").read_text() == "x\n"
    found = load(tmp_path / "made", "tool", "amd64")
    assert found is not None
    assert found.job == "12"


def test_a_client_that_died_while_it_submitted_left_a_job_that_is_found(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, build=f"echo '{ROW}'")
    runner.queue([request(tmp_path)])
    found = load(tmp_path / "made", "tool", "amd64")
    assert found is not None
    replace(found, job="").save()
    later = slurm(tmp_path, heard, squeue=f"echo '12 {found.folder}/job.sh'")
    assert later.attach(task(tmp_path)) == str(DIGEST)
    replace(found, job="").save()
    with pytest.raises(NotFound, match="no SLURM job of tool is known"):
        slurm(tmp_path, heard).attach(task(tmp_path))


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_running_build_of_other_files_is_named_with_ways_out(tmp_path: Path, heard: Heard, state: str) -> None:
    runner = slurm(tmp_path, heard, sbatch="echo 7", squeue=f"echo '7|{state}|None'")
    runner.queue([request(tmp_path)])
    again = slurm(tmp_path, heard, sbatch="exit 1", squeue=f"echo '7|{state}|None'")
    with pytest.raises(Busy) as told:
        again.build(task(tmp_path, key="other"))
    assert told.value.lines()[2] == ("cancel it: scancel 7, or wait for it: singfactory build tool --attach")


def test_a_job_that_was_cancelled_by_others_does_not_stand_in_the_way(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, sbatch="echo 7", squeue="echo '7|CANCELLED|None'")
    runner.queue([request(tmp_path)])
    assert slurm(tmp_path, heard, build=f"echo '{ROW}'").build(task(tmp_path, key="other")) == str(DIGEST)


def test_cancelling_ends_what_waits_before_what_runs(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, sbatch="echo 7", squeue=GONE, scancel=f'echo "$*" >>{tmp_path}/cancelled')
    runner.queue([request(tmp_path)])
    runner.cancel()
    assert (tmp_path / "cancelled").read_text().splitlines() == [
        "--state=PENDING 7",
        "--batch --signal=TERM 7",
        "7",
    ]
    assert [path.name for path in (tmp_path / "made/.jobs").iterdir()] == []
    runner.cancel()
    assert len((tmp_path / "cancelled").read_text().splitlines()) == 3


def test_a_job_on_another_cluster_is_asked_about_and_cancelled_there(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, sbatch="echo '7;big'", scancel=f'echo "$*" >>{tmp_path}/cancelled')
    runner.queue([request(tmp_path)])
    runner.drop(("tool", "amd64"))
    assert (tmp_path / "cancelled").read_text() == "--clusters=big 7\n"
    assert not runner.queued(("tool", "amd64"))


@pytest.mark.parametrize(
    ("programs", "state"),
    [
        ({"squeue": "echo '7|RUNNING|None'"}, JobState("RUNNING")),
        ({"squeue": "echo '7|PENDING|Priority'"}, JobState("PENDING", "Priority")),
        ({"squeue": "echo '77|RUNNING|None'"}, JobState("GONE")),
        (
            {"squeue": "echo '7|FAILED|NonZeroExitCode'", "scontrol": "echo 'JobId=7 JobState=FAILED ExitCode=6:0'"},
            JobState("FAILED", "NonZeroExitCode", 6),
        ),
        (
            {"squeue": "echo '7|FAILED|None'", "scontrol": "echo 'Reason=JobLaunchFailure ExitCode=0:53'"},
            JobState("FAILED", "JobLaunchFailure"),
        ),
        ({"squeue": GONE}, JobState("GONE")),
        ({"squeue": GONE, "sacct": "echo 'CANCELLED by 1000|0:15'"}, JobState("CANCELLED")),
        ({"squeue": GONE, "sacct": "echo 'FAILED|6:0'"}, JobState("FAILED", "", 6)),
        ({"squeue": GONE, "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"}, JobState("GONE")),
    ],
)
def test_the_state_of_a_job_is_what_slurm_or_its_accounting_says(
    tmp_path: Path, heard: Heard, programs: dict[str, str], state: JobState
) -> None:
    slurm(tmp_path, heard, **programs)
    assert Slurm({"PATH": f"{tmp_path}:{os.defpath}"}).state("7") == state


@pytest.mark.parametrize(
    "said",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        'squeue: error: _parse_file: unable to read "/etc/slurm/slurm.conf": No such file or directory',
    ],
)
def test_no_answer_is_not_taken_for_the_end_of_a_job(tmp_path: Path, heard: Heard, said: str) -> None:
    slurm(tmp_path, heard, squeue=f"cat >&2 <<'END'\n{said}\nEND\nexit 1")
    with pytest.raises(ClusterFailure) as told:
        Slurm({"PATH": f"{tmp_path}:{os.defpath}"}).state("7")
    assert (told.value.exit_code, told.value.retryable) == (4, True)


def test_builds_with_the_same_base_and_limit_are_one_submission(tmp_path: Path) -> None:
    requests = [
        request(tmp_path, "python"),
        request(tmp_path, "r"),
        request(tmp_path, "large", minutes=600),
        request(tmp_path, "science", after="python"),
        request(tmp_path, "plots", after="python"),
        request(tmp_path, "torch", after="science"),
    ]
    names = [[one.recipe for one in group] for group in _groups(requests)]
    assert names == [["python", "r"], ["large"], ["science", "plots"], ["torch"]]


def test_more_builds_than_an_array_may_have_are_several_arrays(tmp_path: Path) -> None:
    assert [len(group) for group in _groups([request(tmp_path, f"r{one}") for one in range(2100)])] == [1000, 1000, 100]


def row(recipe: str = "tool") -> str:
    return f'[\n {{\n  "recipe": "{recipe}",\n  "sif_digest": "sha256:{"0" * 64}"\n }}\n]\n'


@pytest.mark.parametrize("document", ["", "[", "{}", "[1]", row("other"), "[" * 100_000, "\ud800"])
def test_a_document_without_the_row_of_the_recipe_is_no_result(document: str) -> None:
    assert _result(document, "tool") is None
    assert (_result(row(), "tool") or {})["recipe"] == "tool"


def test_an_error_of_one_recipe_is_raised_to_those_who_ask_for_it(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "made/.jobs").mkdir(parents=True)
    (tmp_path / "made/.jobs/tool-amd64.json").write_text("{}")
    runner = slurm(tmp_path, heard, build=f"echo '{ROW}'")
    runner.queue([request(tmp_path)])
    with pytest.raises(FactoryError, match="the record of the SLURM job of tool is broken"):
        runner.build(task(tmp_path))


def test_the_time_of_a_submission_is_told(tmp_path: Path, heard: Heard) -> None:
    runner = slurm(tmp_path, heard, build=f"echo '{ROW}'")
    runner.queue([request(tmp_path)])
    found = load(tmp_path / "made", "tool", "amd64")
    assert isinstance(found, JobRecord)
    replace(found, submitted=time.time() - 3 * 3600).save()
    runner.attach(task(tmp_path))
    assert "tool: following SLURM job 7, submitted 3 h ago" in heard.notes

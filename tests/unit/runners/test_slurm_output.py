"""The log of a job in SLURM 22.05 (out-of-memory lines: from its source) and the resulting errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.errors import (
    BuildFailed,
    FactoryError,
    MachineFailure,
    PlaceUnusable,
    RegistryFailure,
    TestsFailed,
    UsageError,
)
from factory.io.progress import Silent
from factory.runners.slurm_output import SlurmOutput
from factory.runners.slurm_queue import ClusterFailure, JobState

TOKEN = "0123456789ab"
STARTED = f"{TOKEN} start 0 node1\n"
CANCELLED = "JOB 7 ON node1 CANCELLED AT 2026-01-02T03:04:05"
INNER = (
    "    last words\n    of the build\nsingfactory: %post failed\n  exit status 1\n  the whole log is /w/build.log\n"
)
AGAIN = "run the same command again, unless you cancelled it yourself"
SHARED = (
    "this machine and the compute nodes must share the project, the candidates and Python",
    "put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
)
MADE = Path("/w/made")
FAILED = JobState("FAILED")


class Recording(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def after(text: str, progress: Recording | None = None) -> SlurmOutput:
    output = SlurmOutput("tool", "7", TOKEN, progress or Recording(), 12)
    output.take(text.encode())
    output.end()
    return output


def shown(error: FactoryError) -> tuple[type[FactoryError], tuple[str, ...], tuple[str, ...]]:
    return type(error), error.lines(), error.detail


def test_the_builds_own_error_is_passed_on_with_its_detail() -> None:
    error = after(f"{STARTED}+ make\n{INNER}").failure(6, FAILED, MADE)
    assert shown(error) == (
        BuildFailed,
        ("%post failed", "exit status 1", "the whole log is /w/build.log"),
        ("last words", "of the build"),
    )


def test_messages_of_slurm_between_the_lines_do_not_break_the_error() -> None:
    error = after(STARTED + INNER.replace("  exit", "slurmstepd: error: x\n  exit")).failure(6, FAILED, MADE)
    assert error.lines() == ("%post failed", "exit status 1", "the whole log is /w/build.log")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (1, FactoryError),
        (2, UsageError),
        (4, RegistryFailure),
        (7, TestsFailed),
        (8, PlaceUnusable),
        (9, MachineFailure),
    ],
)
def test_the_exit_code_of_the_build_decides_the_kind(status: int, kind: type[FactoryError]) -> None:
    error = after(f"{STARTED}singfactory: it failed\n  do this\n").failure(status, FAILED, MADE)
    assert (type(error), error.exit_code, error.lines()) == (kind, status, ("it failed", "do this"))


@pytest.mark.parametrize(
    ("text", "status", "state", "kind", "lines"),
    [
        pytest.param(
            f"{STARTED}slurmstepd-node1: error: *** {CANCELLED} ***\nsingfactory: interrupted\n",
            -1,
            JobState("CANCELLED"),
            BuildFailed,
            ("the SLURM job of tool was cancelled", CANCELLED, AGAIN),
            id="cancelled while it ran",
        ),
        pytest.param(
            "",
            -1,
            JobState("CANCELLED"),
            BuildFailed,
            ("the SLURM job of tool was cancelled", "job 7 was cancelled before it started", AGAIN),
            id="cancelled in the queue",
        ),
        pytest.param(
            "",
            -1,
            JobState("CANCELLED", "Dependency"),
            BuildFailed,
            (
                "tool is not built",
                "the build of its base failed, and so SLURM removed job 7",
                "see why its base failed, then run the same command again",
            ),
            id="its base failed",
        ),
        pytest.param(
            f"{STARTED}slurmstepd: error: *** {CANCELLED} DUE TO TIME LIMIT ***\nsingfactory: interrupted\n",
            -1,
            JobState("TIMEOUT"),
            BuildFailed,
            (
                "SLURM ended the build of tool: it reached its time limit of 12 minutes",
                f"{CANCELLED} DUE TO TIME LIMIT",
                "raise build.timeout in recipe.toml, or choose a partition with a longer limit",
            ),
            id="time limit",
        ),
        pytest.param(
            STARTED,
            -1,
            JobState("TIMEOUT"),
            BuildFailed,
            (
                "SLURM ended the build of tool: it reached its time limit of 12 minutes",
                "build.timeout in recipe.toml, and ten minutes for everything else",
                "raise build.timeout in recipe.toml, or choose a partition with a longer limit",
            ),
            id="time limit, and nothing in the log",
        ),
        pytest.param(
            STARTED,
            -1,
            JobState("NODE_FAIL"),
            ClusterFailure,
            ("SLURM ended the build of tool: its node failed", "its state is NODE_FAIL", "try again"),
            id="node failure",
        ),
        pytest.param(
            f"{STARTED}slurmstepd: error: *** {CANCELLED} DUE TO PREEMPTION ***\n",
            -1,
            JobState("PREEMPTED"),
            ClusterFailure,
            (
                "SLURM ended the build of tool: a job of higher priority took its node",
                f"{CANCELLED} DUE TO PREEMPTION",
                "try again",
            ),
            id="preempted",
        ),
        pytest.param(
            f"{STARTED}{INNER}slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch.\n",
            6,
            FAILED,
            BuildFailed,
            (
                "the build of tool ran out of memory on node1",
                "SLURM ended a process that exceeded the job's memory",
                'request more in factory.toml: slurm_options = ["--mem=32G"]',
            ),
            id="out of memory",
        ),
        pytest.param(
            STARTED,
            -1,
            JobState("OUT_OF_MEMORY"),
            BuildFailed,
            (
                "the build of tool ran out of memory on node1",
                "SLURM ended a process that exceeded the job's memory",
                'request more in factory.toml: slurm_options = ["--mem=32G"]',
            ),
            id="out of memory, and nothing in the log",
        ),
        pytest.param(
            f"{STARTED}{TOKEN} unseen /opt/venv/bin/python\n",
            125,
            FAILED,
            UsageError,
            ("cannot build tool on node1: it does not see /opt/venv/bin/python", *SHARED),
            id="no Python there",
        ),
        pytest.param(
            "",
            -1,
            JobState("FAILED", "JobLaunchFailure"),
            UsageError,
            ("cannot build tool on the node: it does not see /w/made", *SHARED),
            id="no folder for the log",
        ),
        pytest.param(
            STARTED,
            137,
            FAILED,
            BuildFailed,
            (
                "the build of tool on node1 ended without a result",
                "status 137 (killed: out of memory?)",
                "try again; if it happens again, check the node's log",
            ),
            id="killed",
        ),
        pytest.param(
            STARTED,
            -1,
            JobState("GONE"),
            BuildFailed,
            (
                "the build of tool on node1 ended without a result",
                "SLURM does not know job 7 any more",
                "try again; if it happens again, check the node's log",
            ),
            id="forgotten by SLURM",
        ),
    ],
)
def test_the_end_of_a_job_becomes_the_right_error(
    text: str, status: int, state: JobState, kind: type[FactoryError], lines: tuple[str, ...]
) -> None:
    error = after(text).failure(status, state, MADE)
    assert (type(error), error.lines()) == (kind, lines)


def test_a_cluster_failure_is_retryable() -> None:
    error = after(STARTED).failure(1, JobState("NODE_FAIL"), MADE)
    assert (error.exit_code, error.retryable) == (4, True)


def test_lines_arrive_whole_and_the_job_is_noted_once() -> None:
    progress = Recording()
    output = SlurmOutput("tool", "7", TOKEN, progress)
    for piece in (TOKEN[:5], f"{TOKEN[5:]} start 0 node1\n+ mak", "e\n", "+ done"):
        output.take(piece.encode())
    output.take(b"\xff")
    output.end()
    assert progress.notes == ["tool: building in SLURM job 7 on node1"]
    assert progress.lines == ["+ make", "+ done\ufffd"]


def test_a_job_that_starts_again_is_noted_and_its_first_end_does_not_count() -> None:
    progress = Recording()
    lost = "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-02T03:04:05 DUE TO NODE FAILURE ***\n"
    output = after(f"{STARTED}+ make\n{lost}{STARTED.replace('0 node1', '1 node2')}{INNER}", progress)
    assert progress.notes[1] == (
        "tool: SLURM starts job 7 again on node2: JOB 7 ON node1 CANCELLED AT 2026-01-02T03:04:05 DUE TO NODE FAILURE"
    )
    assert output.failure(6, FAILED, MADE).lines()[0] == "%post failed"


@pytest.mark.parametrize("printed", ["singfactory start 5 other", "start 5 other", "unseen /etc/passwd"])
def test_a_recipes_output_is_not_taken_for_the_scripts(printed: str) -> None:
    output = after(f"{STARTED}+ make\n{printed}\n")
    assert (output.node, output.starts) == ("node1", 1)
    assert "ended without a result" in output.failure(1, FAILED, MADE).what

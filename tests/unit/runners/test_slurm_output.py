"""The output of srun in SLURM 22.05 (out-of-memory lines: from its source) and the resulting errors."""

from __future__ import annotations

import pytest

from factory.errors import BuildFailed, FactoryError, MachineFailure, PlaceUnusable, RegistryFailure, UsageError
from factory.io.progress import Silent
from factory.runners.slurm_output import ClusterFailure, SlurmOutput

STARTED = "singfactory-step 7.0 node1\n"
CANCELLED = "STEP 7.0 ON node1 CANCELLED AT 2026-01-02T03:04:05"
QUEUED = "srun: job 7 queued and waiting for resources\n"
INNER = (
    "    last words\n    of the build\nsingfactory: %post failed\n  exit status 1\n  the whole log is /w/build.log\n"
)
ENDED = "srun: error: node1: task 0: Exited with exit code 6\n"
CHECK = "check slurm_partition, slurm_account and slurm_options in factory.toml, build.timeout in recipe.toml"


class Recording(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def after(text: str, progress: Recording | None = None) -> SlurmOutput:
    output = SlurmOutput("tool", progress or Recording())
    output.take(text.encode())
    output.end()
    return output


def shown(error: FactoryError) -> tuple[type[FactoryError], tuple[str, ...], tuple[str, ...]]:
    return type(error), error.lines(), error.detail


def test_the_builds_own_error_is_passed_on_with_its_detail() -> None:
    error = after(f"{STARTED}+ make\n{INNER}{ENDED}").failure(6)
    assert shown(error) == (
        BuildFailed,
        ("%post failed", "exit status 1", "the whole log is /w/build.log"),
        ("last words", "of the build"),
    )


def test_srun_messages_between_the_lines_do_not_break_the_error() -> None:
    error = after(STARTED + INNER.replace("  exit", f"{ENDED}  exit")).failure(6)
    assert error.lines() == ("%post failed", "exit status 1", "the whole log is /w/build.log")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(1, FactoryError), (2, UsageError), (4, RegistryFailure), (8, PlaceUnusable), (9, MachineFailure)],
)
def test_the_exit_code_of_the_build_decides_the_kind(status: int, kind: type[FactoryError]) -> None:
    error = after(f"{STARTED}singfactory: it failed\n  do this\n").failure(status)
    assert (type(error), error.exit_code, error.lines()) == (kind, status, ("it failed", "do this"))


@pytest.mark.parametrize(
    ("text", "status", "kind", "lines"),
    [
        pytest.param(
            "srun: error: invalid partition specified: nope\n"
            "srun: error: Unable to allocate resources: Invalid partition name specified\n",
            1,
            UsageError,
            ("SLURM rejects the job that builds tool", "Invalid partition name specified", CHECK),
            id="no such partition",
        ),
        pytest.param(
            "srun: unrecognized option '--bogus=1'\nTry \"srun --help\" for more information\n",
            255,
            UsageError,
            ("SLURM rejects the job that builds tool", "unrecognized option '--bogus=1'", CHECK),
            id="no such option",
        ),
        pytest.param(
            "srun: error: Unable to create step for job 26: More processors requested than permitted\n",
            1,
            UsageError,
            ("SLURM rejects the job that builds tool", "More processors requested than permitted", CHECK),
            id="step too large",
        ),
        pytest.param(
            "srun: error: Unable to allocate resources: Unable to contact slurm controller (connect failure)\n",
            1,
            ClusterFailure,
            (
                "SLURM does not answer",
                "Unable to contact slurm controller (connect failure)",
                "try again; sinfo shows whether it is up",
            ),
            id="controller down",
        ),
        pytest.param(
            f"{QUEUED}srun: Job has been cancelled\n"
            "srun: error: Unable to allocate resources: Job/step already completing or completed\n",
            1,
            BuildFailed,
            (
                "the SLURM job of tool was cancelled",
                "Job has been cancelled",
                "run the same command again, unless you cancelled it yourself",
            ),
            id="cancelled in the queue",
        ),
        pytest.param(
            f"{STARTED}srun: Job step aborted: Waiting up to 7 seconds for job step to finish.\n"
            f"slurmstepd-node1: error: *** {CANCELLED} ***\n"
            "singfactory: interrupted\n  run the same command again: it goes on from what is complete\n"
            "srun: error: node1: task 0: Exited with exit code 130\n",
            130,
            BuildFailed,
            (
                "the SLURM job of tool was cancelled",
                CANCELLED,
                "run the same command again, unless you cancelled it yourself",
            ),
            id="cancelled while it ran",
        ),
        pytest.param(
            f"{STARTED}slurmstepd: error: *** {CANCELLED} DUE TO TIME LIMIT ***\nsingfactory: interrupted\n",
            130,
            BuildFailed,
            (
                "SLURM ended the build of tool: it reached its time limit",
                f"{CANCELLED} DUE TO TIME LIMIT",
                "raise build.timeout in recipe.toml, or choose a partition with a longer limit",
            ),
            id="time limit",
        ),
        pytest.param(
            f"{STARTED}srun: error: Node failure on node1\nsrun: Job step aborted\n",
            0,
            ClusterFailure,
            ("SLURM ended the build of tool: its node failed", "Node failure on node1", "try again"),
            id="node failure, told with status 0",
        ),
        pytest.param(
            f"{STARTED}slurmstepd: error: *** {CANCELLED} DUE TO PREEMPTION ***\n",
            143,
            ClusterFailure,
            (
                "SLURM ended the build of tool: a job of higher priority took its node",
                f"{CANCELLED} DUE TO PREEMPTION",
                "try again",
            ),
            id="preempted",
        ),
        pytest.param(
            f"{STARTED}{INNER}slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0.\n",
            6,
            BuildFailed,
            (
                "the build of tool ran out of memory on node1",
                "SLURM ended a process that exceeded the job's memory",
                'request more in factory.toml: slurm_options = ["--mem=32G"]',
            ),
            id="out of memory",
        ),
        pytest.param(
            f"{STARTED}singfactory-unseen /opt/venv/bin/python\n",
            125,
            UsageError,
            (
                "cannot build tool on node1: it does not see /opt/venv/bin/python",
                "this machine and the compute nodes must share the project, the candidates and Python",
                "put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
            ),
            id="no Python there",
        ),
        pytest.param(
            f"{STARTED}srun: error: node1: task 0: Killed\n",
            137,
            BuildFailed,
            (
                "the build of tool on node1 ended without a result",
                "status 137 (killed: out of memory?)",
                "try again; if it happens again, check the node's log",
            ),
            id="killed",
        ),
    ],
)
def test_the_end_of_a_job_becomes_the_right_error(
    text: str, status: int, kind: type[FactoryError], lines: tuple[str, ...]
) -> None:
    error = after(text).failure(status)
    assert (type(error), error.lines()) == (kind, lines)


def test_a_cluster_failure_is_retryable() -> None:
    error = after(f"{STARTED}srun: error: Node failure on node1\n").failure(1)
    assert (error.exit_code, error.retryable) == (4, True)


def test_job_and_step_ids_are_known_once_reported() -> None:
    output = SlurmOutput("tool", Silent())
    assert output.target == ""
    output.take(QUEUED.encode())
    assert (output.target, output.seconds_waiting > 0) == ("7", True)
    output.take(b"srun: job 7 has been allocated resources\n")
    assert output.seconds_waiting == 0
    output.take(STARTED.encode())
    assert (output.target, output.node) == ("7.0", "node1")


def test_lines_arrive_whole_and_the_job_is_noted_once() -> None:
    progress = Recording()
    output = SlurmOutput("tool", progress)
    for piece in (b"singfactory-st", b"ep 7.0 node1\n+ mak", b"e\xff\n", b"+ done"):
        output.take(piece)
    output.end()
    assert progress.notes == ["tool: building in SLURM job 7 on node1"]
    assert progress.lines == ["+ make\ufffd", "+ done"]


@pytest.mark.parametrize(
    "printed",
    [
        "singfactory-step 4242.0 other",
        "srun: job 4242 queued and waiting for resources",
        "singfactory-unseen /etc/passwd",
    ],
)
def test_a_recipes_output_cannot_name_another_job(printed: str) -> None:
    output = after(f"{QUEUED}{STARTED}+ make\n{printed}\n")
    assert (output.job, output.step, output.node, output.target) == ("7", "7.0", "node1", "7.0")
    assert output.seconds_waiting == 0
    assert "does not see" not in output.failure(6).what

"""Tests on a GPU node of a SLURM cluster (21.08 and later): one ``sbatch`` job, followed until its report is there.

The job gets the variables of ``SlurmTests.env`` only, and no login: it tests an image that this side has pulled, and
this side attaches the report. The node and this machine must see the project, the store and this Python under the same
paths. Ctrl-C cancels the job.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

from factory.errors import FactoryError, MachineFailure, TestsFailed, UsageError
from factory.io import files, plain
from factory.io.become import absolute_searches
from factory.io.progress import Progress, step
from factory.runners.slurm_queue import ClusterFailure, JobState, Slurm

_MARGIN = timedelta(minutes=10)  # for hashing the image and the readiness checks
_EVERY = 1.0  # seconds between two looks at the report
_ASK_EVERY = 10.0  # seconds between two questions to SLURM, which other users need as well
_FIRST_NOTE, _NOTES = 10.0, 300.0  # seconds in the queue before the first notice, and between notices
_VISIBLE_WITHIN = 60.0  # seconds; NFS clients may show a folder's old content for so long (nfs(5), acdirmax)
_SILENT = 600.0  # seconds without an answer of SLURM until the job is given up
_REPORT_LIMIT = 16 << 20  # bytes
_LOG_LIMIT = 1 << 20
_LOG_LINES = 20

# The job. A requeued job starts again from here. The report is complete or absent under its name.
_SCRIPT = r"""#!/bin/sh
folder=$1 cwd=$2
shift 2
rm -f "$folder/report" "$folder/status"
echo "testing on ${SLURMD_NODENAME:-this node} in SLURM job $SLURM_JOB_ID"
unset SLURM_EXPORT_ENV
cd -- "$cwd" && "$@" >"$folder/report.part"
status=$?
mv -f "$folder/report.part" "$folder/report" 2>/dev/null
echo "$status" >"$folder/status.part" && mv -f "$folder/status.part" "$folder/status"
exit 0
"""


@dataclass(frozen=True)
class TestTask:
    """The tests of one recipe on one image. folder: for the job's files, on the shared file system.

    limit: the sum of the tests' time limits.
    """

    __test__ = False  # the name looks like a test class to pytest

    recipe: str
    image: Path
    folder: Path
    limit: timedelta


@dataclass(frozen=True)
class SlurmTests:
    """Runs tests through sbatch. program starts singfactory on the node, in cwd, with the environment env.

    partition, account and options (of sbatch) select a job's resources.
    """

    program: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    progress: Progress
    partition: str = ""
    account: str = ""
    options: tuple[str, ...] = ("--gpus=1",)

    def run(self, task: TestTask) -> bytes:
        """Run the tests on a node; return what `singfactory test --json` printed there.

        Raises UsageError if SLURM rejects the job, TestsFailed if there is no report, ClusterFailure.
        """
        script = files.make_folder(task.folder) / "job.sh"
        files.atomic_write(script, _SCRIPT, 0o755)
        job = self._submit(task, script)
        self.progress.note(f"{task.recipe}: SLURM job {job} tests it on a GPU; Ctrl-C cancels it")
        try:
            with step(self.progress, f"test {task.recipe} (SLURM job {job})"):
                self._follow(task, job)
        except BaseException:  # Ctrl-C, above all
            self._slurm.cancel([job])
            raise
        return self._report(task, job)

    def arguments(self, task: TestTask, script: Path) -> list[str]:
        """Return the command that submits the job. Everything after the script reaches it as it is, without a shell."""
        minutes = -(-(task.limit + _MARGIN) // timedelta(minutes=1))
        named = (("partition", self.partition), ("account", self.account))
        return [
            "sbatch",
            "--parsable",
            f"--time={minutes}",
            *self.options,
            *(f"--{name}={text}" for name, text in named if text),
            f"--job-name=singfactory-test-{task.recipe}",
            "--nodes=1",
            "--ntasks=1",
            "--export=ALL",
            f"--output={_literal(task.folder / 'log')}",
            "--open-mode=append",
            f"--chdir={task.folder}",
            str(script),
            *(str(task.folder), str(self.cwd)),
            *self.program,
            *("test", task.recipe, "--image", str(task.image), "--gpu", "--json"),
        ]

    @property
    def _slurm(self) -> Slurm:
        return Slurm(self.env)

    def _submit(self, task: TestTask, script: Path) -> str:
        if shutil.which("sbatch", path=absolute_searches(self.env).get("PATH", os.defpath)) is None:
            raise UsageError(
                f"cannot test {task.recipe} with SLURM: sbatch was not found",
                why="SLURM's programs are not on PATH",
                fix="run this on the cluster's login node, or load its SLURM module",
            )
        job, _ = self._slurm.submit(
            self.arguments(task, script),
            script,
            subject=f"tests {task.recipe}",
            fix="check slurm_gpu_partition, slurm_gpu_options and slurm_account: singfactory doctor shows them",
            waiting=self.progress.note,
        )
        return job

    def _follow(self, task: TestTask, job: str) -> None:
        """Wait until the job has written its status, or has ended without one."""
        started = asked = answered = monotonic()
        noted, gone = started + _FIRST_NOTE, None
        while not _seen(task.folder, "status"):
            now = monotonic()
            if now - asked >= _ASK_EVERY or gone is not None:
                asked, state = now, self._state(job)
                answered = now if state is not None else answered
                if state is not None and state.ended:
                    gone = gone or now
                elif state is not None:
                    gone = None
                    if state.waits and now >= noted:
                        noted = now + _NOTES
                        self.progress.note(f"{task.recipe}: SLURM job {job} waits: {state.reason}")
                if gone is not None and state is not None and now - gone > _VISIBLE_WITHIN:
                    raise _ended(task, job, state)
            if now - answered > _SILENT:
                fix = f"the job may still run: squeue -j {job}"
                raise ClusterFailure("SLURM does not answer", why=f"for {_SILENT / 60:.0f} minutes", fix=fix)
            sleep(_EVERY)

    def _state(self, job: str) -> JobState | None:
        """Return the job's state; None without an answer."""
        try:
            return self._slurm.state(job)
        except ClusterFailure:
            return None

    def _report(self, task: TestTask, job: str) -> bytes:
        deadline = monotonic() + _VISIBLE_WITHIN
        while not _seen(task.folder, "report") and monotonic() < deadline:
            sleep(_EVERY)
        status = plain.read_plain(task.folder / "status", 16).decode(errors="replace").strip()
        content = plain.read_plain(task.folder / "report", _REPORT_LIMIT) if _seen(task.folder, "report") else b""
        if status in ("0", str(TestsFailed.exit_code)) and content.strip():
            return content
        log = _tail(task.folder)
        lines = [line for line in log if line.startswith("singfactory: ")]
        raise MachineFailure(
            f"{task.recipe} was not tested: the job on the node failed (SLURM job {job}, status {status})",
            why=lines[-1].removeprefix("singfactory: ") if lines else "",
            fix=f"its log is {task.folder / 'log'}",
            detail=log,
        )


_ENDED = {
    "CANCELLED": "it was cancelled",
    "TIMEOUT": "it reached its time limit: raise the timeout of its [[test]], or choose another partition",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "a job of higher priority took its node",
    "OUT_OF_MEMORY": "it ran out of memory: ask for more in slurm_gpu_options",
    "DEADLINE": "it missed its deadline",
    "BOOT_FAIL": "its node did not start",
}


def _ended(task: TestTask, job: str, state: JobState) -> FactoryError:
    """Return the error for a job that ended without a report."""
    said, log = _ENDED.get(state.name, ""), _tail(task.folder)
    if not said and not log:
        return UsageError(
            f"SLURM job {job} left no report for {task.recipe}",
            why=f"the node does not see {task.folder}, or could not start there",
            fix="keep the project and the store on the cluster's shared file system; for the first: work = …",
        )
    return TestsFailed(
        f"{task.recipe} was not tested: SLURM job {job} ended without a report",
        why=said or "it was ended from outside, or its node failed",
        fix=f"its log is {task.folder / 'log'}",
        detail=log,
    )


def _literal(path: Path) -> str:
    """Return a path for --output, in which sbatch replaces patterns such as %j; ``%%`` is a percent sign."""
    return str(path).replace("%", "%%")


def _seen(folder: Path, name: str) -> bool:
    """Return whether a file is there. Listing the folder makes NFS clients ask the server."""
    try:
        return name in {path.name for path in folder.iterdir()}
    except OSError:
        return False


def _tail(folder: Path) -> Sequence[str]:
    """Return the last lines of the job's log."""
    try:
        content = plain.read_plain(folder / "log", _LOG_LIMIT)
    except (OSError, FactoryError, ValueError):
        return ()
    return [line.rstrip() for line in content.decode(errors="replace").splitlines() if line.strip()][-_LOG_LINES:]

"""Builds on a compute node of a SLURM cluster (21.08 and later): ``srun`` runs this program there.

The node and this machine must see the project, the candidates folder and this Python under the same paths; this is
checked on the node before the build starts. Ctrl-C and SIGTERM end the build on the node, let it clean up, and leave
no job behind. If this process is killed, the kernel ends srun, which ends the job.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

from factory import strict
from factory.errors import BuildFailed, FactoryError, NotFound, UsageError
from factory.io import files, process
from factory.io.become import absolute_searches
from factory.io.progress import Progress, step
from factory.oci.digest import Digest
from factory.runners.protocol import BuildTask, Made
from factory.runners.slurm_output import SlurmOutput

_MARGIN = timedelta(minutes=10)  # for work outside the recipe's time limit: base images, hashing, copying
_FIRST_NOTE, _NOTES = 10.0, 60.0  # seconds in the queue before the first notice, and between notices
_GENTLY, _FIRMLY = 20.0, 20.0  # seconds for the build on the node to clean up, and for SLURM to kill it
_UNKNOWN = 5.0  # seconds for an interrupted srun to report its job ID
_SEEN_WITHIN = 10  # seconds until a new file must be visible on the node
_VISIBLE_WITHIN = 60.0  # seconds; NFS clients may show a folder's old content for so long (nfs(5), acdirmax)
_DOCUMENT_LIMIT = 1 << 20
_MOST_ROWS = 10_000  # in the JSON of a build, which has one row

# Runs on the node before the build. SlurmOutput parses its lines.
_ON_NODE = r"""
echo "singfactory-step $SLURM_JOB_ID.$SLURM_STEP_ID ${SLURMD_NODENAME:-}" >&2
unseen() { echo "singfactory-unseen $1" >&2; exit 125; }
folder=$1 token=$2 left=$3
shift 3
cd -- "$folder" 2>/dev/null || unseen "$folder"
until [ -e "$token" ]; do
    [ "$left" -gt 0 ] || unseen "${token%/*}"
    left=$((left - 1))
    sleep 1
done
command -v "$1" >/dev/null || unseen "$1"
exec "$@"
"""


@dataclass(frozen=True)
class SlurmRunner:
    """Runs builds through srun.

    program starts singfactory on the node, in folder, with the environment env. partition, account and options
    (for srun) select a job's resources; inside a running job, that job's resources are used.
    """

    program: tuple[str, ...]
    folder: Path
    env: Mapping[str, str]
    progress: Progress
    partition: str = ""
    account: str = ""
    options: tuple[str, ...] = ()

    @property
    def outer_job(self) -> str:
        """ID of the job that this process runs in, or ''."""
        return self.env.get("SLURM_JOB_ID", "")

    def arguments(self, task: BuildTask[Any], token: Path) -> list[str]:
        """Return the command that builds on a node. token: a file that exists only in the right candidates folder."""
        return [
            "srun",
            *(self._step_options() if self.outer_job else self._job_options(task)),
            f"--job-name=singfactory-{task.recipe}",
            "--nodes=1",
            "--ntasks=1",
            f"--chdir={self.folder}",
            "--export=ALL",
            "--input=none",
            "--mpi=none",
            "--propagate=NONE",  # a login node's resource limits must not apply to builds
            "--",
            *("/bin/sh", "-c", _ON_NODE, "singfactory"),
            *(str(self.folder), str(token), str(_SEEN_WITHIN)),
            *self.program,
            *("build", task.recipe, "--runner", "local", "--output", str(task.candidates), "--json", "--verbose"),
            *(["--force"] if task.force else []),
        ]

    def build(self, task: BuildTask[Made]) -> Made:
        """Build on a node. Raises the error of the build there, UsageError, BuildFailed, ClusterFailure."""
        if shutil.which("srun", path=absolute_searches(self.env).get("PATH", os.defpath)) is None:
            raise BuildFailed(
                f"cannot build {task.recipe} with SLURM: srun was not found",
                why="SLURM's programs are not on PATH",
                fix="run this on the cluster's login node, load its SLURM module, or build with --runner local",
            )
        output = SlurmOutput(task.recipe, self.progress)
        if self.outer_job:
            self.progress.note(f"building {task.recipe} with the resources of SLURM job {self.outer_job}")
        with (
            step(self.progress, f"build {task.recipe} (SLURM)", expected=task.seconds),
            files.temporary_in(files.make_folder(task.candidates), "slurm") as token,
        ):
            files.atomic_write(token, "")
            document, done = self._run(self.arguments(task, token), output)
        row = _result(document, task.recipe) if done.status == 0 else None
        if row is None:
            raise output.failure(done.status)
        if row.get("arch") != task.arch:
            raise UsageError(
                f"SLURM built {task.recipe} for {row.get('arch')} instead of {task.arch}",
                why=f"{output.node} has another architecture",
                fix='choose nodes in factory.toml: slurm_partition, or slurm_options = ["--constraint=…"]',
            )
        return self._collect(task, Digest.parse(row["sif_digest"]), output)

    def _job_options(self, task: BuildTask[Any]) -> list[str]:
        minutes = -(-(task.timeout + _MARGIN) // timedelta(minutes=1))
        named = (("partition", self.partition), ("account", self.account))
        return [*self.options, *(f"--{name}={text}" for name, text in named if text), f"--time={minutes}"]

    def _step_options(self) -> list[str]:
        """Options inside a job, whose other steps, such as an interactive shell, may hold all of its CPUs."""
        return ["--overlap"]

    def _run(self, arguments: list[str], output: SlurmOutput) -> tuple[bytes, process.Finished]:
        """Run srun in a thread, while this one reports waiting and handles Ctrl-C."""
        document = bytearray()

        def keep(block: bytes) -> None:
            if len(document) <= _DOCUMENT_LIMIT:
                document.extend(block)

        def work() -> None:
            try:
                finished = process.run(
                    arguments, on_output=keep, on_error_output=output.take, env=self.env, cwd=self.folder
                )
            except BaseException as error:  # noqa: BLE001 - raised again where the result is taken
                done.set_exception(error)
            else:
                done.set_result(finished)

        done: Future[process.Finished] = Future()
        Thread(target=work, name="srun", daemon=True).start()
        next_note = _FIRST_NOTE
        try:
            while not wait([done], 0.5).done:
                if output.seconds_waiting > next_note:
                    next_note = output.seconds_waiting + _NOTES
                    self._report_waiting(output)
        except BaseException:  # Ctrl-C, above all
            self._cancel(output, done)
            raise
        finished = done.result()
        output.end()
        return bytes(document), finished

    def _report_waiting(self, output: SlurmOutput) -> None:
        reason = self._ask("squeue", "--noheader", "--format=%r", f"--jobs={output.job}")
        because = f" ({reason})" if reason else ""
        self.progress.note(
            f"{output.recipe}: SLURM job {output.job} has been waiting for {output.seconds_waiting:.0f} s{because}; "
            "Ctrl-C cancels it"
        )

    def _cancel(self, output: SlurmOutput, done: Future[process.Finished]) -> None:
        """Ask the build on the node to end and clean up; if it does not, end the job.

        A job whose ID is not known yet ends with srun, which ends with this process (process.run).
        """
        self.progress.note(f"{output.recipe}: ending the build on the cluster")
        started, signaled = monotonic(), ""
        while not wait([done], 0.2).done and monotonic() - started < (_GENTLY if signaled else _UNKNOWN):
            if output.target != signaled:
                signaled = output.target
                self._ask("scancel", *(["--signal=TERM"] if output.step else []), signaled)
        if not done.done() and output.target:
            # A job that this process runs in is never ended as a whole.
            self._ask("scancel", *(["--signal=KILL", output.step] if self.outer_job else [output.target.split(".")[0]]))
            wait([done], _FIRMLY)

    def _ask(self, *arguments: str) -> str:
        """Return the output of a SLURM program; '' if it fails, since these queries are optional."""
        try:
            status, out, _ = process.output_of(arguments, env=self.env, timeout=20)
        except FactoryError:
            return ""
        return out.decode(errors="replace").strip() if status == 0 else ""

    def _collect(self, task: BuildTask[Made], digest: Digest, output: SlurmOutput) -> Made:
        deadline = monotonic() + _VISIBLE_WITHIN
        while True:
            try:
                return task.collect(digest)
            except NotFound as error:
                if monotonic() > deadline:
                    raise output.unseen(task.candidates) from error
            sleep(1)


def _result(document: bytes, recipe: str) -> dict[str, Any] | None:
    """Return the row of `build --json`, or None. A cluster's prolog may have printed lines before it."""
    start = None
    lines = document.decode(errors="replace").splitlines()
    for index, line in enumerate(lines):
        if line == "[":
            start = index
        if line != "]" or start is None:
            continue
        try:
            rows = strict.array(strict.json_value("\n".join(lines[start : index + 1]), _DOCUMENT_LIMIT), _MOST_ROWS)
        except strict.Malformed:
            rows = []
        start = None
        for row in rows:
            if isinstance(row, dict) and row.get("recipe") == recipe and "sif_digest" in row:
                return row
    return None

"""Builds on a compute node of a SLURM cluster (21.08 and later): ``srun`` runs this same program there.

The node and this machine must see the project, the candidates folder and this Python under the same paths; that
is looked at on the node before the build begins. Ctrl-C and SIGTERM end the build on the node, which then cleans
up, and leave no job. When this process is killed, the kernel ends srun, and srun the job.
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
from factory.io.progress import Progress
from factory.oci.digest import Digest
from factory.runners.protocol import BuildTask, Made
from factory.runners.slurm_output import SlurmOutput

_MARGIN = timedelta(minutes=10)  # for what the recipe's own limit does not count: base images, hashing, copying
_FIRST_NOTE, _NOTES = 10.0, 60.0  # seconds in the queue until it is said, and between two such notes
_GENTLY, _FIRMLY = 20.0, 20.0  # seconds that the build on the node has to clean up, and that SLURM has to end it
_UNKNOWN = 5.0  # seconds that an interrupted srun has to tell which job it got
_SEEN_WITHIN = 10  # seconds until a new file must be seen on the node
_VISIBLE_WITHIN = 60.0  # seconds: so long NFS clients may show what a folder held before (nfs(5), acdirmax)
_DOCUMENT_LIMIT = 1 << 20
_MOST_ROWS = 10_000  # of what a build prints, which has one

# Runs on the node before the build. Its lines are read by SlurmOutput.
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
    """How to ask SLURM.

    program starts singfactory on the node, in folder, with the environment env. partition, account and options
    (of srun) say which resources a job gets; inside a job that runs already, those of that job are used.
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
        """The job that this process runs in already, or ''."""
        return self.env.get("SLURM_JOB_ID", "")

    def arguments(self, task: BuildTask[Any], token: Path) -> list[str]:
        """The command that builds on a node; token: a file that only the right candidates folder holds."""
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
            "--propagate=NONE",  # a login node's limits are not meant for builds
            "--",
            *("/bin/sh", "-c", _ON_NODE, "singfactory"),
            *(str(self.folder), str(token), str(_SEEN_WITHIN)),
            *self.program,
            *("build", task.recipe, "--runner", "local", "--output", str(task.candidates), "--json", "--verbose"),
            *(["--force"] if task.force else []),
        ]

    def build(self, task: BuildTask[Made]) -> Made:
        """Build on a node. Raises what the build there raised, and UsageError, BuildFailed, ClusterFailure."""
        if shutil.which("srun", path=process.absolute_searches(self.env).get("PATH", os.defpath)) is None:
            raise BuildFailed(
                f"{task.recipe} is to be built by SLURM, and there is no srun here",
                why="SLURM's programs are not on PATH",
                fix="run this on the cluster's login node, load its SLURM module, or build with --runner local",
            )
        output = SlurmOutput(task.recipe, self.progress)
        if self.outer_job:
            self.progress.note(f"inside SLURM job {self.outer_job}: {task.recipe} is built with that job's resources")
        self.progress.begin(f"build {task.recipe} (SLURM)")
        try:
            with files.temporary_in(files.make_folder(task.candidates), "slurm") as token:
                files.atomic_write(token, "")
                document, done = self._run(self.arguments(task, token), output)
        finally:
            self.progress.end()
        row = _result(document, task.recipe) if done.status == 0 else None
        if row is None:
            raise output.failure(done.status)
        if row.get("arch") != task.arch:
            raise UsageError(
                f"SLURM built {task.recipe} for {row.get('arch')}, wanted {task.arch}",
                why=f"{output.node} has another architecture",
                fix='choose nodes in factory.toml: slurm_partition, or slurm_options = ["--constraint=…"]',
            )
        return self._collect(task, Digest.parse(row["sif_digest"]), output)

    def _job_options(self, task: BuildTask[Any]) -> list[str]:
        minutes = -(-(task.timeout + _MARGIN) // timedelta(minutes=1))
        named = (("partition", self.partition), ("account", self.account))
        return [*self.options, *(f"--{name}={text}" for name, text in named if text), f"--time={minutes}"]

    def _step_options(self) -> list[str]:
        """Within a job: its other steps, such as the shell that called us, may hold all of its processors."""
        return ["--overlap"]

    def _run(self, arguments: list[str], output: SlurmOutput) -> tuple[bytes, process.Finished]:
        """Run srun to its end in a thread, while this one tells of waiting and takes Ctrl-C."""
        document = bytearray()

        def keep(block: bytes) -> None:
            if len(document) <= _DOCUMENT_LIMIT:
                document.extend(block)

        def work() -> None:
            try:
                told = process.run(
                    arguments, on_output=keep, on_error_output=output.take, env=self.env, cwd=self.folder
                )
            except BaseException as error:  # noqa: BLE001 - raised again where the result is taken
                done.set_exception(error)
            else:
                done.set_result(told)

        done: Future[process.Finished] = Future()
        Thread(target=work, name="srun", daemon=True).start()
        next_note = _FIRST_NOTE
        try:
            while not wait([done], 0.5).done:
                if output.seconds_waiting > next_note:
                    next_note = output.seconds_waiting + _NOTES
                    self._tell_of_waiting(output)
        except BaseException:  # Ctrl-C, above all
            self._cancel(output, done)
            raise
        finished = done.result()
        output.end()
        return bytes(document), finished

    def _tell_of_waiting(self, output: SlurmOutput) -> None:
        reason = self._ask("squeue", "--noheader", "--format=%r", f"--jobs={output.job}")
        because = f" ({reason})" if reason else ""
        self.progress.note(
            f"{output.recipe}: SLURM job {output.job} has been waiting for {output.seconds_waiting:.0f} s{because}; "
            "Ctrl-C cancels it"
        )

    def _cancel(self, output: SlurmOutput, done: Future[process.Finished]) -> None:
        """End the build on the node in a way that lets it clean up; when that does not help, end the job.

        A job whose number nobody told yet ends with srun, which ends with this process (process.run).
        """
        self.progress.note(f"{output.recipe}: ending the build on the cluster")
        started, told = monotonic(), ""
        while not wait([done], 0.2).done and monotonic() - started < (_GENTLY if told else _UNKNOWN):
            if output.target != told:
                told = output.target
                self._ask("scancel", *(["--signal=TERM"] if output.step else []), told)
        if not done.done() and output.target:
            # Never the whole job when it was there before us.
            self._ask("scancel", *(["--signal=KILL", output.step] if self.outer_job else [output.target.split(".")[0]]))
            wait([done], _FIRMLY)

    def _ask(self, *arguments: str) -> str:
        """What a SLURM program answers; '' when it fails: these are asked beside the real work."""
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
    """The row of `build --json`; a cluster's prolog may have printed something before. None when there is none."""
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

"""Parses the output of srun: its own messages, the lines of the build on the node, and how both ended."""

from __future__ import annotations

import re
from collections import deque
from itertools import islice, takewhile
from pathlib import Path
from time import monotonic

from factory.errors import (
    BuildFailed,
    FactoryError,
    IntegrityFailure,
    Interrupted,
    MachineFailure,
    NotFound,
    PlaceUnusable,
    RegistryFailure,
    UsageError,
)
from factory.io.progress import Progress

_KEPT_LINES = 400
_DETAIL_LINES = 20
_LONGEST_LINE = 1 << 16
_OURS = "singfactory: "
_STEP = re.compile(r"singfactory-step (\d{1,18})\.(\d{1,18}) ?(\S{0,253})$", re.ASCII)
_UNSEEN = re.compile(r"singfactory-unseen (.+)$")
_OF_SLURM = re.compile(r"(?:srun|slurmstepd[^:\s]*): (.*)")
_QUEUED = re.compile(r"job (\d{1,18}) queued and waiting for resources", re.ASCII)
_REFUSED = re.compile(r"error: Unable to (?:allocate resources|create step for job \d+): (.*)")
_UNREACHABLE = re.compile(r"contact slurm controller|Socket timed out|Connection (?:refused|timed out)|_parse_file")
_OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|Out Of Memory", re.IGNORECASE)
_KINDS = (
    FactoryError,
    UsageError,
    NotFound,
    RegistryFailure,
    IntegrityFailure,
    BuildFailed,
    PlaceUnusable,
    MachineFailure,
    Interrupted,
)
_BY_CODE = {kind.exit_code: kind for kind in _KINDS}


class ClusterFailure(FactoryError):
    """The cluster failed, not the build: a retry may help."""

    exit_code = RegistryFailure.exit_code
    retryable = True


class SlurmOutput:
    """Collects srun's standard error: its own lines, the node's, and those of the build.

    job, step and node are '' until they are known. Job and step IDs are accepted only before the build starts: a
    recipe can print anything, and `scancel` would end another job.
    """

    def __init__(self, recipe: str, progress: Progress) -> None:
        self.recipe = recipe
        self.job = self.step = self.node = ""
        self._progress = progress
        self._rest = b""
        self._build: deque[str] = deque(maxlen=_KEPT_LINES)
        self._slurm: deque[str] = deque(maxlen=_KEPT_LINES)
        self._unseen = ""
        self._queued_at: float | None = None

    @property
    def target(self) -> str:
        """ID for `scancel`: the step once it runs, the job while it waits, '' before that."""
        return self.step or self.job

    @property
    def seconds_waiting(self) -> float:
        """Seconds that the job has been in the queue; 0 if it is not waiting."""
        return 0.0 if self._queued_at is None else monotonic() - self._queued_at

    def take(self, block: bytes) -> None:
        """Process the next block of srun's output."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._line(line.decode("utf-8", "replace").rstrip())

    def end(self) -> None:
        """Process the last, unterminated line."""
        if self._rest:
            self._line(self._rest.decode("utf-8", "replace").rstrip())
            self._rest = b""

    def failure(self, status: int) -> FactoryError:
        """Return the error for an srun that ended with this status and no result."""
        return (
            self._ended_by_slurm()
            or (self.unseen(Path(self._unseen)) if self._unseen else None)
            or (self._of_build(status) if self.step else self._refused(status))
        )

    def unseen(self, path: Path) -> FactoryError:
        """Return the error for a path that is visible on only one of the two machines."""
        return UsageError(
            f"cannot build {self.recipe} on {self.node or 'the node'}: it does not see {path}",
            why="this machine and the compute nodes must share the project, the candidates and Python",
            fix="put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
        )

    def _line(self, line: str) -> None:
        if found := _UNSEEN.match(line):
            self._unseen = self._unseen or ("" if self._build else found[1])
        elif self.step:
            self._line_of_build(line)
        elif found := _STEP.match(line):
            self.step, self.node = f"{found[1]}.{found[2]}", found[3]
            self._queued_at = None
            where = f" on {self.node}" if self.node else ""
            self._progress.note(f"{self.recipe}: building in SLURM job {found[1]}{where}")
        elif found := _OF_SLURM.match(line):
            self._slurm.append(found[1])
            if queued := _QUEUED.match(found[1]):
                self.job, self._queued_at = queued[1], monotonic()
            elif found[1].endswith("has been allocated resources"):
                self._queued_at = None
            self._progress.line(line)
        else:
            self._line_of_build(line)

    def _line_of_build(self, line: str) -> None:
        """Process a line after the build has started: from SLURM, which may end it, or from the build."""
        found = _OF_SLURM.match(line)
        if found:
            self._slurm.append(found[1])
        else:
            self._build.append(line)
        self._progress.line(line)

    def _ended_by_slurm(self) -> FactoryError | None:
        """Return the error for a job that SLURM ended; None if the build failed."""
        said = "\n".join(self._slurm)
        if "DUE TO TIME LIMIT" in said:
            return BuildFailed(
                f"SLURM ended the build of {self.recipe}: it reached its time limit",
                why=self._said("TIME LIMIT"),
                fix="raise build.timeout in recipe.toml, or choose a partition with a longer limit",
                detail=self._tail(),
            )
        if _OUT_OF_MEMORY.search(said):
            return BuildFailed(
                f"the build of {self.recipe} ran out of memory on {self.node or 'the node'}",
                why="SLURM ended a process that exceeded the job's memory",
                fix='request more in factory.toml: slurm_options = ["--mem=32G"]',
                detail=self._tail(),
            )
        for sign, what in (("node failure", "its node failed"), ("preempt", "a job of higher priority took its node")):
            if sign in said.lower():
                why = self._said(sign)
                return ClusterFailure(f"SLURM ended the build of {self.recipe}: {what}", why=why, fix="try again")
        for sign in ("CANCELLED AT", "Job has been cancelled", "has been revoked"):
            if sign in said:
                what, why = f"the SLURM job of {self.recipe} was cancelled", self._said(sign)
                return BuildFailed(what, why=why, fix="run the same command again, unless you cancelled it yourself")
        return None

    def _refused(self, status: int) -> FactoryError:
        """Return the error for a job that never started."""
        found = [match[1] for line in self._slurm if (match := _REFUSED.match(line))]
        why = [f"srun ended with status {status}", *self._build, *self._slurm, *found][-1]
        if _UNREACHABLE.search("\n".join(self._slurm)):
            return ClusterFailure("SLURM does not answer", why=why, fix="try again; sinfo shows whether it is up")
        return UsageError(
            f"SLURM rejects the job that builds {self.recipe}",
            why=why,
            fix="check slurm_partition, slurm_account and slurm_options in factory.toml, build.timeout in recipe.toml",
        )

    def _of_build(self, status: int) -> FactoryError:
        """Return the error that singfactory reported on the node."""
        lines = list(self._build)
        starts = [index for index, line in enumerate(lines) if line.startswith(_OURS)]
        if status == 0 or status not in _BY_CODE or not starts:
            where = self.node or "the node"
            return BuildFailed(
                f"the build of {self.recipe} on {where} ended without a result",
                why=f"status {status}" + (" (killed: out of memory?)" if status == 137 else ""),  # noqa: PLR2004 - 128 + SIGKILL
                fix="try again; if it happens again, check the node's log",
                detail=self._tail(),
            )
        first = starts[-1]
        above = takewhile(lambda line: line.startswith("    "), reversed(lines[:first]))
        below = takewhile(lambda line: line.startswith("  "), lines[first + 1 : first + 3])
        why, fix = [*(text.strip() for text in below), "", ""][:2]
        return _BY_CODE[status](
            lines[first].removeprefix(_OURS),
            why=why,
            fix=fix,
            detail=[line[4:] for line in islice(above, _DETAIL_LINES)][::-1],
        )

    def _said(self, sign: str) -> str:
        """Return SLURM's last line with these words, without its decoration."""
        line = next(line for line in reversed(self._slurm) if sign.lower() in line.lower())
        return line.removeprefix("error: ").strip("* ")

    def _tail(self) -> list[str]:
        """Return the build's last lines before singfactory reported the interrupt."""
        lines = list(takewhile(lambda line: not line.startswith(_OURS), self._build))
        return [line.strip() for line in lines[-_DETAIL_LINES:]]

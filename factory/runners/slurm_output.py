"""Parses the log of a build's SLURM job: lines of our script, of SLURM and of the build, and how it ended."""

from __future__ import annotations

import re
from collections import deque
from itertools import islice, takewhile
from pathlib import Path

from factory.errors import (
    BuildFailed,
    FactoryError,
    IntegrityFailure,
    Interrupted,
    MachineFailure,
    NotFound,
    PlaceUnusable,
    RegistryFailure,
    TestsFailed,
    UsageError,
)
from factory.io.progress import Progress
from factory.runners.slurm_queue import NO_FOLDER, ClusterFailure, JobState

_KEPT_LINES = 400
_DETAIL_LINES = 20
_LONGEST_LINE = 1 << 16
_OURS = "singfactory: "
_START = re.compile(r"start (\d{1,9}) ?(\S{0,253})$", re.ASCII)
_UNSEEN = re.compile(r"unseen (.+)$")
_OF_SLURM = re.compile(r"(?:srun|slurmstepd[^:\s]*): (.*)")
_OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|Out Of Memory", re.IGNORECASE)
_KINDS = (
    FactoryError,
    UsageError,
    NotFound,
    RegistryFailure,
    IntegrityFailure,
    BuildFailed,
    TestsFailed,
    PlaceUnusable,
    MachineFailure,
    Interrupted,
)
_BY_CODE = {kind.exit_code: kind for kind in _KINDS}


class SlurmOutput:
    """Collects the log of one job: SLURM's lines, and those of the build.

    token: begins the lines of our script; a recipe can print anything, but does not know it. limit: the job's time
    limit in minutes, 0 if unknown. node is '' until the job starts; starts: how often it has started.
    """

    def __init__(self, recipe: str, job: str, token: str, progress: Progress, limit: int = 0) -> None:
        self.recipe = recipe
        self.job = job
        self.node = ""
        self.starts = 0
        self._token = token
        self._limit = limit
        self._progress = progress
        self._rest = b""
        self._build: deque[str] = deque(maxlen=_KEPT_LINES)
        self._slurm: deque[str] = deque(maxlen=_KEPT_LINES)
        self._unseen = ""

    @property
    def has_error(self) -> bool:
        """Whether the build has reported an error, or SLURM the reason for its end."""
        return bool(self._unseen) or any(line.startswith(_OURS) for line in self._build)

    def take(self, block: bytes) -> None:
        """Process the next block of the log."""
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

    def failure(self, status: int, state: JobState, candidates: Path) -> FactoryError:
        """Return the error for a job without a result. status: of the build, -1 if unknown. candidates: its folder."""
        if state.reason == NO_FOLDER and not self.starts:
            return self.unseen(candidates)
        return (
            self._ended_by_slurm(state)
            or (self.unseen(Path(self._unseen)) if self._unseen else None)
            or self._of_build(status)
        )

    def unseen(self, path: Path) -> FactoryError:
        """Return the error for a path that is visible on only one of the two machines."""
        return UsageError(
            f"cannot build {self.recipe} on {self.node or 'the node'}: it does not see {path}",
            why="this machine and the compute nodes must share the project, the candidates and Python",
            fix="put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
        )

    def _line(self, line: str) -> None:
        if line.startswith(f"{self._token} "):
            self._of_script(line[len(self._token) + 1 :])
            return
        found = _OF_SLURM.match(line)
        if found:
            self._slurm.append(found[1])
        else:
            self._build.append(line)
        self._progress.line(line)

    def _of_script(self, text: str) -> None:
        if found := _UNSEEN.match(text):
            self._unseen = found[1]
        elif found := _START.match(text):
            self.starts, self.node = self.starts + 1, found[2]
            where = f" on {self.node}" if self.node else ""
            if self.starts > 1:
                why = f": {self._slurm[-1].removeprefix('error: ').strip('* ')}" if self._slurm else ""
                self._progress.note(f"{self.recipe}: SLURM starts job {self.job} again{where}{why}")
                self._build.clear()
                self._slurm.clear()
            else:
                self._progress.note(f"{self.recipe}: building in SLURM job {self.job}{where}")

    def _ended_by_slurm(self, state: JobState) -> FactoryError | None:
        """Return the error for a job that SLURM ended; None if the build failed."""
        said = "\n".join(self._slurm)
        if "DUE TO TIME LIMIT" in said or state.name == "TIMEOUT":
            limit = f" of {self._limit} minutes" if self._limit else ""
            return BuildFailed(
                f"SLURM ended the build of {self.recipe}: it reached its time limit{limit}",
                why=self._said("TIME LIMIT") or "build.timeout in recipe.toml, and ten minutes for everything else",
                fix="raise build.timeout in recipe.toml, or choose a partition with a longer limit",
                detail=self._tail(),
            )
        if _OUT_OF_MEMORY.search(said) or state.name == "OUT_OF_MEMORY":
            return BuildFailed(
                f"the build of {self.recipe} ran out of memory on {self.node or 'the node'}",
                why="SLURM ended a process that exceeded the job's memory",
                fix='request more in factory.toml: slurm_options = ["--mem=32G"]',
                detail=self._tail(),
            )
        for sign, names, what in (
            ("node failure", ("NODE_FAIL", "BOOT_FAIL"), "its node failed"),
            ("preempt", ("PREEMPTED",), "a job of higher priority took its node"),
        ):
            if sign in said.lower() or state.name in names:
                why = self._said(sign) or f"its state is {state.name}"
                return ClusterFailure(f"SLURM ended the build of {self.recipe}: {what}", why=why, fix="try again")
        if "Dependency" in state.reason and not self.starts:
            what, why = (
                f"{self.recipe} is not built",
                f"the build of its base failed, and so SLURM removed job {self.job}",
            )
            return BuildFailed(what, why=why, fix="see why its base failed, then run the same command again")
        if "CANCELLED AT" in said or state.name == "CANCELLED":
            what = f"the SLURM job of {self.recipe} was cancelled"
            why = self._said("CANCELLED AT") or f"job {self.job} was cancelled before it started"
            return BuildFailed(what, why=why, fix="run the same command again, unless you cancelled it yourself")
        return None

    def _of_build(self, status: int) -> FactoryError:
        """Return the error that singfactory reported on the node."""
        lines = list(self._build)
        starts = [index for index, line in enumerate(lines) if line.startswith(_OURS)]
        if status == 0 or status not in _BY_CODE or not starts:
            where = self.node or "the node"
            return BuildFailed(
                f"the build of {self.recipe} on {where} ended without a result",
                why=self._how(status),
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

    def _how(self, status: int) -> str:
        if status < 0:
            return f"SLURM does not know job {self.job} any more" if not self._slurm else self._slurm[-1]
        return f"status {status}" + (" (killed: out of memory?)" if status == 137 else "")  # noqa: PLR2004 - 128 + SIGKILL

    def _said(self, sign: str) -> str:
        """Return SLURM's last line with these words, without its decoration; '' if there is none."""
        line = next((line for line in reversed(self._slurm) if sign.lower() in line.lower()), "")
        return line.removeprefix("error: ").strip("* ")

    def _tail(self) -> list[str]:
        """Return the build's last lines before singfactory reported the interrupt."""
        lines = list(takewhile(lambda line: not line.startswith(_OURS), self._build))
        return [line.strip() for line in lines[-_DETAIL_LINES:]]

"""SLURM's programs (21.08 and later): submit, ask about and cancel jobs. Accounting (sacct) is used if there is any."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError, NoAnswer, RegistryFailure, UsageError
from factory.io import process

_TIME_LIMIT = 30.0  # seconds for one answer
_PATIENCE = 120.0  # seconds to keep trying to submit a job
_PAUSE = 5.0
_UNREACHABLE = re.compile(
    r"contact slurm controller|Socket timed out|Connection (?:refused|timed out)|_parse_file|Zero Bytes|"
    r"temporarily unavailable|Unable to establish config",
    re.IGNORECASE,
)
_SUBMITTED = re.compile(r"^([0-9]{1,18})(?:;([A-Za-z0-9][A-Za-z0-9_.-]{0,63}))?$", re.ASCII | re.MULTILINE)
_FIELD = re.compile(r"\b(\w{1,64})=(\S*)")
NO_FOLDER = "JobLaunchFailure"  # SLURM's reason for a job whose log cannot be created on the node
WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
_ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
    | {"REVOKED", "GONE"}
)


class ClusterFailure(FactoryError):
    """The cluster failed, not what it should run: a retry may help."""

    exit_code = RegistryFailure.exit_code
    retryable = True


@dataclass(frozen=True)
class JobState:
    """What SLURM says of a job. name: such as RUNNING; GONE if SLURM does not know the job any more.

    status: the exit status of its script, if it has ended and SLURM knows it.
    """

    name: str
    reason: str = ""
    status: int | None = None

    @property
    def waits(self) -> bool:
        """Whether it has not started, or is to start again."""
        return self.name in WAITING

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self.name in _ENDED


class Slurm:
    """SLURM, through its programs. env: for them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def submit(
        self, arguments: Sequence[str], script: Path, *, subject: str, fix: str, waiting: Callable[[str], None]
    ) -> tuple[str, str]:
        """Submit a job. Return its ID, and its cluster if SLURM names one.

        A SLURM that does not answer is asked again for two minutes; a job that it took without saying so is found by
        its script. subject and fix complete the error for a job that is refused: "builds tool". waiting: told once, if
        SLURM does not answer. Raises UsageError, ClusterFailure.
        """
        deadline = time.monotonic() + _PATIENCE
        told = False
        while True:
            status, out, why = self._try(*arguments)
            found = submitted(out) if status == 0 else None
            if found:
                return found
            if not is_unreachable(why):
                raise UsageError(
                    f"SLURM rejects the job that {subject}",
                    why=_last_of(why) or f"sbatch ended with status {status}",
                    fix=fix,
                )
            if taken := self.find(script):
                return taken, ""
            if time.monotonic() > deadline:
                raise no_answer(_last_of(why))
            if not told:
                waiting(f"SLURM does not answer ({_last_of(why)}); trying again for {_PATIENCE:.0f} s")
                told = True
            time.sleep(_PAUSE)

    def find(self, script: Path) -> str:
        """Return the ID of the job with this script, of this user; '' if there is none, or no answer."""
        status, out, _ = self._try("squeue", "--me", "--noheader", "--states=all", "--format=%F %o")
        for line in out.splitlines() if status == 0 else ():
            job, _, command = line.strip().partition(" ")
            if command.strip() == str(script):
                return job
        return ""

    def state(self, job: str, cluster: str = "") -> JobState:
        """Return the state of a job or an array's member. Raises ClusterFailure if SLURM does not answer."""
        where = _where(cluster)
        status, out, why = self._try(
            "squeue", *where, "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={job}"
        )
        if status != 0 and is_unreachable(why):
            raise no_answer(_last_of(why))
        for line in out.splitlines() if status == 0 else ():
            number, _, rest = line.strip().partition("|")
            name, _, reason = rest.partition("|")
            if number == job:
                state = JobState(name, "" if reason == "None" else reason)
                return self._ended(job, where, state) if state.ended else state
        return self._accounted(job, where)

    def cancel(self, jobs: Sequence[str], cluster: str = "", *, only: Sequence[str] = ()) -> None:
        """Cancel jobs. only: further options, which select some of them or a signal."""
        if jobs:
            self._try("scancel", *_where(cluster), *only, *jobs)

    def _ended(self, job: str, where: Sequence[str], state: JobState) -> JobState:
        """Add the exit status, which squeue does not tell."""
        status, out, _ = self._try("scontrol", *where, "--oneliner", "show", "job", job)
        fields = dict(_FIELD.findall(out)) if status == 0 else {}
        code, _, signal = fields.get("ExitCode", "").partition(":")
        known = code.isdigit() and signal == "0"
        return JobState(state.name, state.reason or fields.get("Reason", ""), int(code) if known else None)

    def _accounted(self, job: str, where: Sequence[str]) -> JobState:
        """Return the state of a job that has left the queue, as the accounting knows it."""
        status, out, _ = self._try(
            "sacct", *where, "--noheader", "--parsable2", "--allocations", "--format=State,ExitCode", f"--jobs={job}"
        )
        for line in out.splitlines() if status == 0 else ():
            name, _, codes = line.partition("|")
            state = JobState((name.split() or ["GONE"])[0])  # "CANCELLED by 1000"
            code, _, signal = codes.partition(":")
            if state.ended:
                return JobState(state.name, "", int(code) if code.isdigit() and signal == "0" else None)
        return JobState("GONE")

    def _try(self, *arguments: str) -> tuple[int, str, str]:
        """Run one of SLURM's programs. Return its status, output, and messages."""
        try:
            status, out, why = process.output_of(arguments, env=self._env, timeout=_TIME_LIMIT)
        except NoAnswer as error:
            return 1, "", f"Socket timed out: {error.what}"
        except FactoryError as error:  # sacct is not installed everywhere
            return 1, "", error.what
        return status, out.decode(errors="replace"), why.decode(errors="replace")


def submitted(out: str) -> tuple[str, str] | None:
    """Return the job's ID and its cluster, if it is named, from what ``sbatch --parsable`` printed."""
    found = _SUBMITTED.search(out)
    return (found[1], found[2] or "") if found else None


def is_unreachable(messages: str) -> bool:
    """Return whether a program of SLURM says that the controller does not answer."""
    return _UNREACHABLE.search(messages) is not None


def no_answer(why: str) -> ClusterFailure:
    """Return the error for a SLURM that does not answer."""
    return ClusterFailure("SLURM does not answer", why=why, fix="try again; sinfo shows whether it is up")


def _where(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _last_of(messages: str) -> str:
    """Return the last message of a program, without its decoration."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("Try ")]
    last = (kept or lines or [""])[-1]
    return re.sub(r"^(?:sbatch: )?(?:error: )?(?:Batch job submission failed: )?", "", last)

"""Follow a SLURM job to its end: its log as it grows, its state in the queue, and its result."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from factory.errors import FactoryError
from factory.io import plain
from factory.io.progress import Progress
from factory.runners.slurm_output import SlurmOutput
from factory.runners.slurm_queue import NO_FOLDER, ClusterFailure, JobState, Slurm
from factory.runners.slurm_state import End, JobRecord

_POLL = 0.5  # seconds between two looks at the log and the result
_ASK_FIRST, _ASK_LEAST, _SLOWER = 2.0, 15.0, 1.3  # seconds between questions to SLURM: ever fewer
_FIRST_NOTE, _NOTES = 10.0, 60.0  # seconds in the queue before the first notice, and between notices
_VISIBLE_WITHIN = 60.0  # seconds; NFS clients may show a folder's old content for so long (nfs(5), acdirmax)
_LOG_WITHIN = 5.0  # seconds for the last lines of a failed build to arrive
_SILENCE = 1800.0  # seconds that SLURM may not answer while nothing else shows that the job is alive
_ENDED_BY = 143  # the script's exit status when it was asked to end (128 + SIGTERM): it writes no result then


@dataclass(frozen=True)
class Ended:
    """How a job ended. end: None if the script wrote no result. state: as SLURM knows it."""

    end: End | None
    state: JobState


class Follower:
    """Follows one job. Its log is read from the start, so that whoever attaches later sees all of it."""

    def __init__(self, record: JobRecord, slurm: Slurm, output: SlurmOutput, progress: Progress) -> None:
        self._record = record
        self._slurm = slurm
        self._output = output
        self._progress = progress
        self._read = 0
        self._started = time.monotonic()
        self._next_note = _FIRST_NOTE
        self._pause = _ASK_FIRST
        self._next_question = 0.0
        self._silent_since: float | None = None

    def wait(self) -> Ended:
        """Return when the job has ended. Raises ClusterFailure if SLURM is silent for half an hour."""
        while True:
            self._read_log()
            end = self._record.end()
            if end is not None:
                self._read_last(failed=end.status != 0)
                return Ended(end, JobState("COMPLETED"))
            state = self._ask()
            if state is not None and state.ended:
                return self._without_result(state)
            time.sleep(_POLL)

    def _without_result(self, state: JobState) -> Ended:
        """Return how a job ended that has left no result yet: it may become visible, or never come."""
        wrote = state.name in ("COMPLETED", "GONE") or (
            state.name == "FAILED" and state.status not in (None, _ENDED_BY)
        )
        patience = _VISIBLE_WITHIN if wrote and state.reason != NO_FOLDER else _LOG_WITHIN / 5
        deadline = time.monotonic() + patience
        while (end := self._record.end()) is None and time.monotonic() < deadline:
            self._read_log()
            time.sleep(_POLL)
        self._read_last(failed=False)
        return Ended(end, state)

    def _read_log(self) -> bool:
        """Pass on what is new in the log; return whether anything was."""
        before = self._read
        with contextlib.suppress(OSError):  # not there yet, or stale for a moment
            for block in plain.blocks_of(self._record.log, self._read):
                self._read += len(block)
                self._output.take(block)
        return self._read > before

    def _read_last(self, *, failed: bool) -> None:
        """Read the log to its end. After a failure, its last lines may arrive later than the result."""
        deadline = time.monotonic() + (_LOG_WITHIN if failed else 0.0)
        self._read_log()
        while not self._output.has_error and time.monotonic() < deadline:
            time.sleep(_POLL)
            self._read_log()
        self._output.end()

    def _ask(self) -> JobState | None:
        """Ask SLURM, but not often: everybody on the cluster asks it. None: no answer, or not asked."""
        now = time.monotonic()
        if now < self._next_question:
            return None
        state: JobState | None = None
        try:
            state = found = self._slurm.state(self._record.job, self._record.cluster)
        except ClusterFailure as error:
            self._silence(error, now)
        else:
            if self._silent_since is not None:
                self._progress.note(f"{self._record.recipe}: SLURM answers again")
            self._silent_since = None
            if found.waits:
                self._report_waiting(found, now)
        self._pause = min(self._pause * _SLOWER, _ASK_LEAST)
        self._next_question = time.monotonic() + self._pause
        return state

    def _silence(self, error: FactoryError, now: float) -> None:
        recipe, job = self._record.recipe, self._record.job
        if self._silent_since is None:
            self._silent_since = now
            self._progress.note(f"{recipe}: SLURM does not answer ({error.why}); job {job} may go on, waiting for it")
        if now - self._silent_since > _SILENCE:
            raise ClusterFailure(
                f"SLURM has not answered for {_SILENCE / 60:.0f} minutes",
                why=error.why,
                fix=f"later: singfactory build {recipe} --attach",
            )

    def _report_waiting(self, state: JobState, now: float) -> None:
        waited = now - self._started
        if waited < self._next_note:
            return
        self._next_note = waited + _NOTES
        because = f" ({state.reason})" if state.reason else ""
        self._progress.note(
            f"{self._record.recipe}: SLURM job {self._record.job} has been waiting for {waited:.0f} s{because}; "
            "Ctrl-C cancels it"
        )

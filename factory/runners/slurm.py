"""Builds on compute nodes of a SLURM cluster (21.08 and later): batch jobs, which outlive this process.

Each job builds and tests one recipe. Independent builds with the same time limit are members of one job array, and a
build waits in the queue for its base (--dependency). Log and result are next to the candidates (slurm_state.py), so any
later process can follow a job. The node and this machine must see the project, the candidates folder and this Python
under the same paths; the job says which one it does not see.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from secrets import token_hex
from typing import Any

from factory import strict
from factory.errors import BuildFailed, Busy, Disconnected, FactoryError, NotFound, UsageError
from factory.io import files
from factory.io.become import absolute_searches
from factory.io.locks import lock
from factory.io.progress import Progress, step
from factory.oci.digest import Digest
from factory.runners import slurm_script as scripts
from factory.runners.protocol import BuildRequest, BuildTask, Made
from factory.runners.slurm_follow import Ended, Follower
from factory.runners.slurm_output import SlurmOutput
from factory.runners.slurm_queue import JobState, Slurm
from factory.runners.slurm_script import JobOptions
from factory.runners.slurm_state import SCRIPT, End, JobRecord, load, run_folder

_GENTLY = 20.0  # seconds for builds on nodes to end and clean up
_VISIBLE_WITHIN = 60.0  # seconds; NFS clients may show a folder's old content for so long (nfs(5), acdirmax)
_LOCK_TIMEOUT = 300.0  # seconds to wait for another process that submits builds
_MOST_MEMBERS = 1000  # of a job array (slurm.conf(5), MaxArraySize)
_DOCUMENT_LIMIT = 1 << 20
_MOST_ROWS = 10_000  # in the JSON of a build, which has one row
_TESTS_FAILED = 7  # the exit status of a build whose image is complete, but failed its tests

Target = tuple[str, str]


class SlurmRunner:
    """Runs builds as batch jobs, and follows them.

    program starts singfactory on the node, in folder, with the environment env.
    """

    elsewhere = True

    def __init__(
        self,
        program: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        progress: Progress,
        options: JobOptions | None = None,
    ) -> None:
        self._program = tuple(program)
        self._folder = folder
        self._env = env
        self._progress = progress
        self._options = options or JobOptions()
        self._slurm = Slurm(env)
        self._jobs: dict[Target, JobRecord] = {}  # submitted or found, and not yet asked for
        self._limits: dict[Target, int] = {}
        self._refused: dict[Target, FactoryError] = {}

    def queue(self, requests: Sequence[BuildRequest]) -> None:
        """Submit builds, or find the running jobs that build the same. requests: bases first, in one folder.

        ``build`` raises what keeps one of them from being submitted.
        """
        if not requests:
            return
        with self._errors_kept(requests):
            self._require_slurm(requests[0].recipe)
            self._queue(requests)

    def _queue(self, requests: Sequence[BuildRequest]) -> None:
        folder = files.make_folder(requests[0].candidates)
        with lock(folder / ".locks/slurm.lock", _LOCK_TIMEOUT, self._progress):
            for group in _groups([one for one in requests if not self._found(one)]):
                with self._errors_kept(group):
                    self._submit(group)

    def queued(self, target: Target) -> bool:
        """Whether a job of this target is known, or was refused, and nobody asked for the result."""
        return target in self._jobs or target in self._refused

    @property
    def open_jobs(self) -> tuple[JobRecord, ...]:
        """The jobs whose results nobody asked for."""
        return tuple(self._jobs.values())

    def drop(self, target: Target) -> None:
        """Cancel a queued build whose result is not needed."""
        found = self._jobs.pop(target, None)
        if found is not None:
            self._slurm.cancel([found.job], found.cluster)
            found.remove()

    def build(self, task: BuildTask[Made]) -> Made:
        """Build on a node, or follow the job that does already. Raises the error of the build or of its submission.

        That is UsageError for a job that SLURM refuses, BuildFailed without SLURM, ClusterFailure, and Busy if a job
        builds this recipe from other files.
        """
        if not self.queued(task.request.target):
            self.queue([replace(task.request, after="")])
        if refused := self._refused.pop(task.request.target, None):
            raise refused
        return self._result(task)

    def attach(self, task: BuildTask[Made]) -> Made:
        """Follow the last job of a recipe, running or ended. Raises NotFound if there is none, and as ``build``."""
        request = task.request
        self._require_slurm(request.recipe)
        found = self._known(request)
        if found is None:
            raise NotFound(
                f"no SLURM job of {request.recipe} is known",
                why=f"none was submitted with candidates in {request.candidates}, or it was cancelled",
                fix=f"singfactory build {request.recipe} --runner slurm",
            )
        self._tell_attached(found)
        self._jobs[request.target] = found
        return self._result(task)

    def cancel(self) -> None:
        """End all jobs whose results nobody asked for. Builds clean up first; a second Ctrl-C does not wait."""
        records = self.open_jobs
        self._jobs.clear()
        if not records:
            return
        names = ", ".join(record.recipe for record in records)
        try:  # around the notice, too: who reads it may be quick
            self._progress.note(f"{names}: ending the build on the cluster; press Ctrl-C again to end it at once")
            self._cancel(records, "--state=PENDING")  # first: a dependent could start when its base has ended
            self._cancel(records, "--batch", "--signal=TERM")
            deadline = time.monotonic() + _GENTLY
            while not self._all_ended(records) and time.monotonic() < deadline:
                time.sleep(0.5)
        finally:
            self._cancel(records)
            for record in records:
                record.remove()

    def _cancel(self, records: Iterable[JobRecord], *only: str) -> None:
        for cluster, of_cluster in groupby(records, key=lambda record: record.cluster):
            self._slurm.cancel([record.job for record in of_cluster], cluster, only=only)

    def _all_ended(self, records: Iterable[JobRecord]) -> bool:
        try:
            return all(self._state(one).ended for one in records)
        except FactoryError:  # no answer
            return False

    def _state(self, record: JobRecord) -> JobState:
        return self._slurm.state(record.job, record.cluster)

    def _require_slurm(self, recipe: str) -> None:
        if shutil.which("sbatch", path=absolute_searches(self._env).get("PATH", os.defpath)) is None:
            raise BuildFailed(
                f"cannot build {recipe} with SLURM: sbatch was not found",
                why="SLURM's programs are not on PATH",
                fix="run this on the cluster's login node, load its SLURM module, or build with --runner local",
            )

    def _known(self, request: BuildRequest) -> JobRecord | None:
        """Return the record of a recipe's last job. One that was being submitted when its client died is completed."""
        found = load(request.candidates, *request.target)
        if found is None or found.job:
            return found
        job = self._slurm.find(found.folder / SCRIPT)
        if job:
            several = scripts.has_members(found.folder / SCRIPT)
            return replace(found, job=f"{job}_{found.number}" if several else job).save()
        found.remove()
        return None

    @contextmanager
    def _errors_kept(self, requests: Sequence[BuildRequest]) -> Iterator[None]:
        """Keep an error for those who ask for these builds."""
        try:
            yield
        except FactoryError as error:
            self._refused |= {one.target: error for one in requests}

    def _found(self, request: BuildRequest) -> bool:
        """Look for a job that builds the same: a running one, or one whose result nobody has seen."""
        with self._errors_kept([request]):
            self._look_for(request)
        return self.queued(request.target)

    def _look_for(self, request: BuildRequest) -> None:
        found = self._known(request)
        if found is None:
            return
        end = found.end()
        running = end is None and not self._state(found).ended
        if running and found.key != request.key:
            raise Busy(
                f"SLURM job {found.job} is building {request.recipe} from other files than the ones here",
                why="the recipe, its base or its files have changed since it was submitted",
                fix=f"cancel it: scancel {found.job}, or wait for it: singfactory build {request.recipe} --attach",
            )
        unseen = end is not None and end.status == 0 and not found.collected and not request.fresh
        if found.key == request.key and (running or unseen):
            self._tell_attached(found)
            self._jobs[request.target] = found

    def _tell_attached(self, found: JobRecord) -> None:
        ago = max(0.0, time.time() - found.submitted)
        when = f"{ago / 60:.0f} min" if ago < 7200 else f"{ago / 3600:.0f} h"  # noqa: PLR2004 - two hours
        self._progress.note(f"{found.recipe}: following SLURM job {found.job}, submitted {when} ago")

    def _submit(self, group: Sequence[BuildRequest]) -> None:
        """Submit builds that wait for the same base, as one job. The records are written first: a death loses nothing.

        Builds whose base was refused are not submitted: they fail with it.
        """
        base = self._jobs.get((group[0].after, group[0].arch))
        if group[0].after and base is None:
            return
        candidates, run = group[0].candidates, token_hex(6)
        folder = files.make_folder(run_folder(candidates, run))
        after = base.job if base is not None and base.end() is None else ""
        arguments = scripts.sbatch(group, run=folder, after=after, options=self._options)
        text = scripts.script(
            group, program=self._program, folder=self._folder, run=folder, token=run, options=self._options
        )
        files.atomic_write(folder / SCRIPT, os.fsencode(text), 0o755)
        records = [
            JobRecord(candidates, one.recipe, one.arch, run, number, one.key, time.time()).save()
            for number, one in enumerate(group)
        ]
        named = ", ".join(one.recipe for one in group)
        try:
            job, cluster = self._slurm.submit(
                arguments,
                folder / SCRIPT,
                subject=f"builds {named}",
                fix="check slurm_partition, slurm_account and slurm_options in factory.toml, "
                "build.timeout in recipe.toml",
                waiting=lambda text: self._progress.note(f"{named}: {text}"),
            )
        except Disconnected:  # the job is found by its script
            raise
        except BaseException:  # Ctrl-C, too: SLURM may have taken it
            if taken := self._slurm.find(folder / SCRIPT):
                self._slurm.cancel([taken])
            for record in records:
                record.remove()
            raise
        for record in records:
            one = replace(record, job=f"{job}_{record.number}" if len(group) > 1 else job, cluster=cluster).save()
            self._jobs[one.target] = one
            self._limits[one.target] = scripts.minutes(group[0])
        self._progress.note(f"{named}: SLURM job {job} is submitted")

    def _result(self, task: BuildTask[Made]) -> Made:
        """Follow a job to its end and return its result."""
        request = task.request
        record = self._jobs[request.target]
        limit = self._limits.get(request.target) or scripts.minutes(request)
        output = SlurmOutput(record.recipe, record.job, record.run, self._progress, limit)
        with step(self._progress, f"build {record.recipe} (SLURM)", expected=request.seconds):
            ended = Follower(record, self._slurm, output, self._progress).wait()
        del self._jobs[request.target]
        record.mark_collected()
        row = _row_of(ended, request.recipe)
        if row is None:
            status = ended.end.status if ended.end else -1 if ended.state.status is None else ended.state.status
            raise output.failure(status, ended.state, request.candidates)
        if row.get("arch") != request.arch:
            raise UsageError(
                f"SLURM built {request.recipe} for {row.get('arch')} instead of {request.arch}",
                why=f"{output.node or 'the node'} has another architecture",
                fix='choose nodes in factory.toml: slurm_partition, or slurm_options = ["--constraint=…"]',
            )
        digest = Digest.parse(row["sif_digest"])
        if record.collected:  # long ago, perhaps: then there may be a newer image
            return task.collect(digest)
        return _visible(lambda: task.collect(digest), lambda: output.unseen(request.candidates))


def _groups(requests: Sequence[BuildRequest]) -> list[list[BuildRequest]]:
    """Return the requests as submissions, bases first: with the same base and the same limit, they are one."""
    waves: dict[Target, int] = {}
    for one in requests:
        waves[one.target] = waves.get((one.after, one.arch), -1) + 1 if one.after else 0

    def alike(one: BuildRequest) -> tuple[int, str, str, int]:
        return waves[one.target], one.after, one.arch, scripts.minutes(one)

    found = [list(group) for _, group in groupby(sorted(requests, key=alike), key=alike)]
    return [group[at : at + _MOST_MEMBERS] for group in found for at in range(0, len(group), _MOST_MEMBERS)]


def _row_of(ended: Ended, recipe: str) -> dict[str, Any] | None:
    """Return the row of the image that was built; None if none was. A failed test leaves an image, and its report."""
    end: End | None = ended.end
    return _result(end.document, recipe) if end is not None and end.status in (0, _TESTS_FAILED) else None


def _visible(collect: Callable[[], Made], unseen: Callable[[], Exception]) -> Made:
    """Collect a result that may become visible here a little later."""
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while True:
        try:
            return collect()
        except NotFound as error:
            if time.monotonic() > deadline:
                raise unseen() from error
        time.sleep(1)


def _result(document: str, recipe: str) -> dict[str, Any] | None:
    """Return the row of `build --json`, or None."""
    try:
        rows = strict.array(strict.json_value(document, _DOCUMENT_LIMIT), _MOST_ROWS)
    except strict.Malformed:
        return None
    for row in rows:
        if isinstance(row, dict) and row.get("recipe") == recipe and "sif_digest" in row:
            return row
    return None

"""Turn a plan into CI jobs: waves that run one after another, with entries that run concurrently.

An entry builds and tests one recipe for one architecture. A job's output is only as trustworthy as the job, so it may
only be about its own recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import UsageError
from factory.oci.names import recipe_name
from factory.recipes.document import ARCHITECTURES
from factory.records.candidate import folder_of
from factory.records.job import Job, Plan, Target

MOST_WAVES = 4  # the workflow has this many build jobs in sequence
PLAN_LIMIT = 32 * 1024 * 1024  # bytes of all matrices together
MOST_ENTRIES = 256  # GitHub Actions: "A matrix will generate a maximum of 256 jobs per workflow run"
MOST_BYTES = 100_000  # per matrix: steps get it as an environment variable, at most 128 KiB on Linux (execve(2))
LARGE = 14_000_000_000  # bytes; GitHub promises a job 14 GB of disk


@dataclass(frozen=True)
class Runners:
    """Runner labels for each architecture, and for recipes that need more than 14 GB of disk.

    large: '' to use the others; ``{arch}`` in it is replaced by the architecture.
    """

    amd64: str = "ubuntu-24.04"
    arm64: str = "ubuntu-24.04-arm"
    large: str = ""

    def label(self, arch: str, *, large: bool) -> str:
        """Return the runner label for a job."""
        usual = {"amd64": self.amd64, "arm64": self.arm64}[arch]
        return (self.large.replace("{arch}", arch) or usual) if large else usual


@dataclass(frozen=True)
class Entry:
    """One job of a matrix. large: it needs more than 14 GB of disk.

    candidate: the candidate's folder, and the name of the artifact that the job uploads. bases: a pattern for the
    artifacts of its bases, '' if all bases are published.
    """

    recipe: str
    arch: str
    title: str
    candidate: str
    bases: str
    runner: str
    large: bool

    def to_json(self) -> dict[str, Any]:
        """Return one element of ``include``."""
        return asdict(self)


Wave = tuple[Entry, ...]


@dataclass(frozen=True)
class Schedule:
    """waves: the entries of each; a wave's bases are in earlier waves. left: jobs for a later run."""

    waves: tuple[Wave, ...] = ()
    left: tuple[Job, ...] = ()


def schedule(plan: Plan, runners: Runners) -> Schedule:
    """Return the waves of a plan. Jobs that do not fit into a wave go to the next one, or are left for a later run.

    Raises UsageError for a chain of recipes that is longer than the number of waves.
    """
    by_target = {job.target: job for job in plan.jobs}
    deepest = max(plan.jobs, key=lambda job: job.wave, default=None)
    if deepest is not None and deepest.wave >= MOST_WAVES:
        raise UsageError(
            f"the chain of bases of {deepest.recipe.name} is too long",
            why=f"{' -> '.join(job.recipe.name for job in _chain(deepest, by_target))}; "
            f"the workflow can build {MOST_WAVES} in sequence",
            fix="base one of them on an earlier recipe, or build some of them first: singfactory make NAME",
        )
    waves: list[list[Entry]] = [[] for _ in range(MOST_WAVES)]
    sizes = [0] * MOST_WAVES
    number_of: dict[Target, int] = {}
    left = []
    for job in _urgent_first(plan):
        entry = _entry(job, _chain(job, by_target)[:-1], runners)
        size = len(compact(entry.to_json())) + 1
        base = number_of.get((job.waits_for, job.arch), MOST_WAVES) if job.waits_for else -1
        not_full = (number for number in range(base + 1, MOST_WAVES) if len(waves[number]) < MOST_ENTRIES)
        number = next((number for number in not_full if sizes[number] + size < MOST_BYTES), None)
        if number is None:
            left.append(job)
            continue
        number_of[job.target] = number
        waves[number].append(entry)
        sizes[number] += size
    return Schedule(tuple(tuple(wave) for wave in waves if wave), tuple(left))


def matrix(wave: Wave) -> dict[str, Any]:
    """Return a wave as the value of ``strategy.matrix``."""
    return {"include": [entry.to_json() for entry in wave]}


def compact(value: object) -> str:
    """Return JSON on one line."""
    return json.dumps(value, separators=(",", ":"))


def planned(text: str) -> frozenset[Target]:
    """Return the targets in matrices: JSON, one matrix per line, or the output of ``plan --github-matrix``.

    Raises UsageError for anything else.
    """
    if len(text) > PLAN_LIMIT:
        raise UsageError("the plan cannot be parsed", why=f"it has more than {PLAN_LIMIT} characters")
    try:
        documents = [strict.json_object(line, PLAN_LIMIT) for line in text.splitlines() if line.strip()]
        matrices = [strict.mapping(matrix) for one in documents for matrix in one.get("waves", [one])]
        return frozenset(_target(entry) for one in matrices for entry in one["include"])
    except (ValueError, LookupError, TypeError, UsageError) as error:
        raise UsageError(
            "the plan cannot be parsed", why="it is not a list of matrices", fix="singfactory plan --github-matrix"
        ) from error


def _target(entry: dict[str, Any]) -> Target:
    if entry["arch"] not in ARCHITECTURES:
        raise ValueError("there is no such architecture")
    return recipe_name(entry["recipe"]), entry["arch"]


def _urgent_first(plan: Plan) -> list[Job]:
    """Return the jobs, bases first; within a wave, those with the longest chain of dependents first."""
    below = dict.fromkeys((job.target for job in plan.jobs), 0)
    for job in reversed(plan.jobs):
        base = (job.waits_for, job.arch)
        if job.waits_for:
            below[base] = max(below[base], below[job.target] + 1)
    return sorted(plan.jobs, key=lambda job: (job.wave, -below[job.target]))


def _chain(last: Job, by_target: Mapping[Target, Job]) -> list[Job]:
    """Return a job's bases, then the job itself."""
    found = [last]
    while found[0].waits_for:
        found.insert(0, by_target[found[0].waits_for, last.arch])
    return found


def _entry(job: Job, bases: Sequence[Job], runners: Runners) -> Entry:
    large = job.recipe.build.disk > LARGE
    names = [_artifact(base) for base in bases]
    return Entry(
        recipe=job.recipe.name,
        arch=job.arch,
        title=job.title,
        candidate=_artifact(job),
        bases=names[0] if len(names) == 1 else "{" + ",".join(names) + "}" if names else "",
        runner=runners.label(job.arch, large=large),
        large=large,
    )


def _artifact(job: Job) -> str:
    """Return the artifact's name: the name of the candidate's folder."""
    return folder_of(Path(), job.recipe.name, job.arch).name

"""From a plan to the jobs of a CI service: waves, one after another, of entries that run at the same time.

One entry builds and tests one recipe for one architecture, and nothing else: what a job hands over is worth what that
job is worth, so it can speak of its own recipe only.
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
from factory.recipes.load import ARCHITECTURES
from factory.records.candidate import folder_of
from factory.records.job import Job, Plan, Target

MOST_WAVES = 4  # as many as the workflow has jobs for, one after another
PLAN_LIMIT = 32 * 1024 * 1024  # bytes of all matrices together
MOST_ENTRIES = 256  # GitHub Actions: "A matrix will generate a maximum of 256 jobs per workflow run"
MOST_BYTES = 100_000  # of a matrix: steps get it as a variable, and Linux takes 128 KiB for one (execve(2))
LARGE = 14_000_000_000  # bytes; GitHub promises a job 14 GB of disk


@dataclass(frozen=True)
class Runners:
    """The label of the machines for an architecture, and for recipes that need more than 14 GB of disk.

    large: '' for the same as others; ``{arch}`` in it stands for the architecture.
    """

    amd64: str = "ubuntu-24.04"
    arm64: str = "ubuntu-24.04-arm"
    large: str = ""

    def label(self, arch: str, *, large: bool) -> str:
        """The label for one kind of job."""
        usual = {"amd64": self.amd64, "arm64": self.arm64}[arch]
        return (self.large.replace("{arch}", arch) or usual) if large else usual


@dataclass(frozen=True)
class Entry:
    """One job of a matrix. large: it needs more than 14 GB of disk.

    candidate: the folder of what it makes, which it hands over as an artifact of that name. bases: a pattern of the
    artifacts that it builds upon, '' when all of those are published.
    """

    recipe: str
    arch: str
    title: str
    candidate: str
    bases: str
    runner: str
    large: bool

    def to_json(self) -> dict[str, Any]:
        """One element of ``include``."""
        return asdict(self)


Wave = tuple[Entry, ...]


@dataclass(frozen=True)
class Schedule:
    """waves: the matrix of each; what a wave builds upon is in the waves before it. left: jobs for a later run."""

    waves: tuple[Wave, ...] = ()
    left: tuple[Job, ...] = ()


def schedule(plan: Plan, runners: Runners) -> Schedule:
    """The waves of a plan. Where one is full, jobs go to the next, and those that no wave has room for are left.

    Raises UsageError for a chain of recipes that is longer than there are waves.
    """
    by_target = {job.target: job for job in plan.jobs}
    deepest = max(plan.jobs, key=lambda job: job.wave, default=None)
    if deepest is not None and deepest.wave >= MOST_WAVES:
        raise UsageError(
            f"{deepest.recipe.name} builds upon too many recipes in a row",
            why=f"{' -> '.join(job.recipe.name for job in _chain(deepest, by_target))}; "
            f"the workflow builds {MOST_WAVES} one after another",
            fix="let one of them build upon an earlier recipe, or build some of them first: singfactory make NAME",
        )
    waves: list[list[Entry]] = [[] for _ in range(MOST_WAVES)]
    sizes = [0] * MOST_WAVES
    number_of: dict[Target, int] = {}
    left = []
    for job in _urgent_first(plan):
        entry = _entry(job, _chain(job, by_target)[:-1], runners)
        size = len(compact(entry.to_json())) + 1
        base = number_of.get((job.waits_for, job.arch), MOST_WAVES) if job.waits_for else -1
        rooms = (number for number in range(base + 1, MOST_WAVES) if len(waves[number]) < MOST_ENTRIES)
        number = next((number for number in rooms if sizes[number] + size < MOST_BYTES), None)
        if number is None:
            left.append(job)
            continue
        number_of[job.target] = number
        waves[number].append(entry)
        sizes[number] += size
    return Schedule(tuple(tuple(wave) for wave in waves if wave), tuple(left))


def matrix(wave: Wave) -> dict[str, Any]:
    """A wave as the value of ``strategy.matrix``."""
    return {"include": [entry.to_json() for entry in wave]}


def compact(value: object) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"))


def planned(text: str) -> frozenset[Target]:
    """What the jobs of these matrices build: JSON, one matrix a line, or all as ``plan --github-matrix`` prints them.

    Raises UsageError for anything else.
    """
    if len(text) > PLAN_LIMIT:
        raise UsageError("the plan cannot be read", why=f"it has more than {PLAN_LIMIT} characters")
    try:
        documents = [strict.json_object(line, PLAN_LIMIT) for line in text.splitlines() if line.strip()]
        matrices = [strict.mapping(matrix) for one in documents for matrix in one.get("waves", [one])]
        return frozenset(_target(entry) for one in matrices for entry in one["include"])
    except (ValueError, LookupError, TypeError, UsageError) as error:
        raise UsageError(
            "the plan cannot be read", why="it is not what the matrices are", fix="singfactory plan --github-matrix"
        ) from error


def _target(entry: dict[str, Any]) -> Target:
    if entry["arch"] not in ARCHITECTURES:
        raise ValueError("there is no such architecture")
    return recipe_name(entry["recipe"]), entry["arch"]


def _urgent_first(plan: Plan) -> list[Job]:
    """The jobs, bases first; of one depth, those first upon which the longest chains wait."""
    below = dict.fromkeys((job.target for job in plan.jobs), 0)
    for job in reversed(plan.jobs):
        base = (job.waits_for, job.arch)
        if job.waits_for:
            below[base] = max(below[base], below[job.target] + 1)
    return sorted(plan.jobs, key=lambda job: (job.wave, -below[job.target]))


def _chain(last: Job, by_target: Mapping[Target, Job]) -> list[Job]:
    """The jobs that a job builds upon, and it, in this order."""
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
    """An artifact is the folder of a candidate, and has its name."""
    return folder_of(Path(), job.recipe.name, job.arch).name

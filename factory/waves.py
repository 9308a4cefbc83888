"""From a plan to the jobs of a CI service: waves, one after another, of entries that run at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from factory.errors import UsageError
from factory.plan import Job, Plan

MOST_WAVES = 4  # as many as the workflow has jobs for, one after another
MOST_ENTRIES = 256  # GitHub Actions: "A matrix will generate a maximum of 256 jobs per workflow run"
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
    """One job of a matrix. names: recipes, with blanks between; large: it needs more than 14 GB of disk."""

    names: str
    title: str
    arch: str
    runner: str
    large: bool

    def to_json(self) -> dict[str, Any]:
        """One element of ``include``."""
        return asdict(self)


Wave = tuple[Entry, ...]


def waves(plan: Plan, runners: Runners) -> tuple[Wave, ...]:
    """The matrix of each wave; what a wave builds upon is in the waves before it.

    One recipe an entry, or several where a wave would have more entries than GitHub takes. Raises UsageError for a
    chain of recipes that is longer than there are waves.
    """
    deepest = max(plan.jobs, key=lambda job: job.wave, default=None)
    if deepest is None:
        return ()
    if deepest.wave >= MOST_WAVES:
        raise UsageError(
            f"{deepest.recipe.name} builds upon too many recipes in a row",
            why=f"{' -> '.join(_chain(plan, deepest))}; the workflow builds {MOST_WAVES} one after another",
            fix="let one of them build upon an earlier recipe, or build some of them first: singfactory make NAME",
        )
    return tuple(
        _entries([job for job in plan.jobs if job.wave == number], runners) for number in range(deepest.wave + 1)
    )


def matrix(wave: Wave) -> dict[str, Any]:
    """A wave as the value of ``strategy.matrix``."""
    return {"include": [entry.to_json() for entry in wave]}


def _chain(plan: Plan, last: Job) -> list[str]:
    """The recipes that are built for a job, and it, in this order."""
    by_title = {(job.recipe.name, job.arch): job for job in plan.jobs}
    names, here = [last.recipe.name], last
    while here.waits_for:
        here = by_title[here.waits_for, here.arch]
        names.insert(0, here.recipe.name)
    return names


def _entries(jobs: Sequence[Job], runners: Runners) -> Wave:
    groups: dict[tuple[str, bool], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.arch, job.recipe.build.disk > LARGE), []).append(job)
    sizes = _sizes({kind: len(group) for kind, group in groups.items()})
    return tuple(
        _entry(group[start : start + sizes[kind]], kind, runners)
        for kind, group in groups.items()
        for start in range(0, len(group), sizes[kind])
    )


def _sizes(counts: dict[tuple[str, bool], int]) -> dict[tuple[str, bool], int]:
    """How many recipes an entry of each kind has. Large ones stay alone as long as there is room: disks are small."""
    size, alone = 1, True
    while True:
        sizes = {kind: 1 if kind[1] and alone else size for kind in counts}
        if sum(-(-count // sizes[kind]) for kind, count in counts.items()) <= MOST_ENTRIES:
            return sizes
        if size < max(counts.values()):
            size += 1
        else:
            size, alone = 1, False


def _entry(jobs: Sequence[Job], kind: tuple[str, bool], runners: Runners) -> Entry:
    arch, large = kind
    first, *others = (job.recipe.name for job in jobs)
    title = f"{first} ({arch})" if not others else f"{first} and {len(others)} more ({arch})"
    return Entry(" ".join((first, *others)), title, arch, runners.label(arch, large=large), large)

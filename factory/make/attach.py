"""Follow the builds of SLURM jobs that an earlier process has submitted, to their results."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial

from factory.errors import FactoryError
from factory.make.adapters import Adapters
from factory.make.builds import BuildResult, collected
from factory.make.tested import require_no_failure
from factory.plan.plan import in_order
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records.candidate import Candidate
from factory.records.inputs import gather
from factory.records.job import Job
from factory.runners.protocol import BuildRequest, BuildTask
from factory.runners.slurm import SlurmRunner


def attach_named(
    recipes: Sequence[Recipe], names: Collection[str], runner: SlurmRunner, adapters: Adapters
) -> Iterator[BuildResult]:
    """Follow the last SLURM job of each named recipe, running or ended, and yield each result."""
    for recipe in in_order(recipes):
        if recipe.name not in names:
            continue
        made: Candidate | None = None
        try:
            made = runner.attach(_task(recipe, adapters))
            require_no_failure(recipe, made)
        except FactoryError as error:
            yield BuildResult(recipe, made, error)
        else:
            yield BuildResult(recipe, made)


def _task(recipe: Recipe, adapters: Adapters) -> BuildTask[Candidate]:
    """Return a task that only collects. Its inputs lack the bases, which may have moved since."""
    job = Job(recipe, adapters.arch, ("asked for",), gather(recipe, adapters.arch, "", ""))
    request = BuildRequest(
        recipe=recipe.name,
        arch=adapters.arch,
        candidates=adapters.candidates,
        timeout=recipe.build.timeout,
        force=False,
        seconds=candidates.last_seconds(adapters.candidates, recipe.name, adapters.arch),
    )
    collect = partial(collected, job, adapters.candidates)
    return BuildTask(request, build=_never, collect=collect)


def _never() -> Candidate:
    raise NotImplementedError

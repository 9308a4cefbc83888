"""Builds on other machines are started ahead, in dependency order, before the result of the first is awaited."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from factory.errors import FactoryError
from factory.make.adapters import Adapters
from factory.plan.plan import Snapshot
from factory.recipes.lint.lint import refuse_broken
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records.candidate import Candidate
from factory.records.inputs import gather
from factory.records.job import Job, Target
from factory.runners.protocol import BuildRequest, Runner


def queue_ahead(
    jobs: Sequence[tuple[Recipe, Job | None]], snapshot: Snapshot, adapters: Adapters, *, force: bool, renew: bool
) -> None:
    """Queue builds whose runner works elsewhere: all whose base is ready, and all whose base is queued.

    jobs: bases first; a job is None until its base is built. Others are built when ``build_one`` comes to them, and
    what is wrong with them is reported then. force, renew: as for ``build_one``.
    """
    queued: set[Target] = set()
    by_runner: dict[int, tuple[Runner, list[BuildRequest]]] = {}
    for recipe, job in jobs:
        follows = (recipe.base_recipe, adapters.arch) in queued
        if job is None and not follows:
            continue
        try:
            runner = adapters.runner(recipe)
            if not runner.elsewhere:
                continue
            refuse_broken(recipe, adapters.all_recipes())
            ready = ready_record(job, snapshot, adapters) if job is not None and not follows and not force else None
            if ready is not None and (not renew or not is_known(ready, snapshot)):
                continue
            after = recipe.base_recipe if follows else ""
            request = request_for(recipe, snapshot, adapters, force=force or renew, fresh=force, after=after)
        except FactoryError:
            continue
        by_runner.setdefault(id(runner), (runner, []))[1].append(request)
        queued.add(request.target)
    for runner, requests in by_runner.values():
        runner.queue(requests)


def drop_queued(recipe: Recipe, adapters: Adapters) -> None:
    """End the queued build of a recipe whose result is not needed."""
    try:
        runner = adapters.runner(recipe)
    except FactoryError:
        return
    if runner.queued((recipe.name, adapters.arch)):
        runner.drop((recipe.name, adapters.arch))


def request_for(
    recipe: Recipe, snapshot: Snapshot, adapters: Adapters, *, force: bool, fresh: bool, after: str = ""
) -> BuildRequest:
    """Return what a runner must know to build a recipe. Raises FactoryError if the recipe's files cannot be read."""
    runner = adapters.runner(recipe)
    return BuildRequest(
        recipe=recipe.name,
        arch=adapters.arch,
        candidates=adapters.candidates,
        timeout=recipe.build.timeout,
        force=force,
        fresh=fresh,
        key=key_of_files(recipe, snapshot, adapters) if runner.elsewhere else "",
        after=after,
        seconds=candidates.last_seconds(adapters.candidates, recipe.name, adapters.arch),
    )


def key_of_files(recipe: Recipe, snapshot: Snapshot, adapters: Adapters) -> str:
    """Return a digest of a recipe's files and of those of its bases: what is published, and the engine, do not count.

    Therefore it is known before a base is built, and it is the same on every machine.
    """
    known = {one.name: one for one in adapters.all_recipes()}
    return _key(recipe, known, adapters.arch, snapshot, ())


def _key(recipe: Recipe, known: Mapping[str, Recipe], arch: str, snapshot: Snapshot, above: Collection[str]) -> str:
    base = snapshot.bases.get(recipe.name, "")
    below = known.get(recipe.base_recipe)
    if below is not None and below.name not in above:  # a circle is refused where recipes are ordered
        base = _key(below, known, arch, snapshot, (*above, recipe.name))
    text = "" if isinstance(base, FactoryError) else base
    return str(gather(recipe, arch, text, "", snapshot.images.get(recipe.name, {})).key)


def ready_record(job: Job, snapshot: Snapshot, adapters: Adapters) -> Candidate | None:
    """Return the record of a candidate with a job's inputs, without hashing the image; None if there is none.

    Without an engine, the inputs are not fully known.
    """
    if not snapshot.engine:
        return None
    try:
        found = candidates.load(adapters.candidates, job.recipe.name, job.arch)
        candidates.require_size(found)
    except (FactoryError, OSError):
        return None
    return found if found.key == str(job.inputs.key) else None


def is_known(ready: Candidate, snapshot: Snapshot) -> bool:
    """Return whether a candidate is published, or was found to have the contents of a release."""
    releases = snapshot.catalog.entry(ready.recipe).releases
    judged = {release.repeat.created for release in releases if release.repeat is not None}
    return ready.sif.digest in {release.sif.digest for release in releases} or ready.created in judged

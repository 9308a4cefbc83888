"""Builds: which candidates are reused, which are built and where, and from which base image."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from factory.build.build import build
from factory.errors import BuildFailed, FactoryError, NotFound, UsageError
from factory.io.progress import Progress
from factory.make.adapters import Adapters
from factory.make.ahead import drop_queued, is_known, queue_ahead, request_for
from factory.make.tested import require_no_failure, test_one
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.plan.plan import Snapshot, in_order, is_stale, job_for
from factory.publish.publish import is_unchanged
from factory.pull.pull import pull
from factory.recipes.lint.lint import refuse_broken
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records import report as reports
from factory.records.candidate import Candidate
from factory.records.inputs import gather, is_base
from factory.records.job import Base, Job
from factory.records.release import Release
from factory.registry.protocol import Registry
from factory.runners.protocol import BuildTask
from factory.store.store import Store


@dataclass(frozen=True)
class BuildResult:
    """Result of building one recipe: its candidate, or the error; both if the candidate's tests failed."""

    recipe: Recipe
    candidate: Candidate | None = None
    error: FactoryError | None = None


def build_named(
    recipes: Sequence[Recipe],
    names: Collection[str],
    snapshot: Snapshot,
    adapters: Adapters,
    *,
    force: bool = False,
    test: bool = False,
    handed: Path | None = None,
) -> Iterator[BuildResult]:
    """Build the named recipes for this machine, published or not, bases first, and yield each result.

    recipes: the named ones and their bases. Bases that are not named are not built: their candidates or published
    images are used. A failure stops only the recipes based on it. test: test each candidate, too; builds elsewhere
    always are. handed: folder with candidates of earlier jobs of the same run.
    """
    _queue_named(recipes, names, snapshot, adapters, force=force, handed=handed)
    failed = set()
    for recipe in in_order(recipes):
        named = recipe.name in names
        made: Candidate | None = None
        error: FactoryError | None = None
        try:
            if recipe.base_recipe in failed:
                raise BuildFailed(f"{recipe.name} is not built", why=f"its base {recipe.base_recipe} failed")
            if named:
                _require_runner_for(recipe, handed, adapters)
                job = job_for(recipe, adapters.arch, snapshot, gather)
                made = build_one(job, snapshot, adapters, force=force)
                if adapters.runner(recipe).elsewhere:
                    require_no_failure(recipe, made)
                elif test:
                    test_one(recipe, made, adapters)
            else:
                made = built_before(recipe, adapters.arch, snapshot, adapters, handed)
        except FactoryError as failure:
            error = failure
            failed.add(recipe.name)
            drop_queued(recipe, adapters)
        if made is not None and error is None and not _is_published(made, recipe, snapshot):
            snapshot = snapshot.with_built(made)
        if named or error is not None:
            yield BuildResult(recipe, made, error)


def _queue_named(
    recipes: Sequence[Recipe],
    names: Collection[str],
    snapshot: Snapshot,
    adapters: Adapters,
    *,
    force: bool,
    handed: Path | None,
) -> None:
    """Start the named builds that run elsewhere. What is wrong with one is reported where its result is asked for."""
    jobs: list[tuple[Recipe, Job | None]] = []
    for recipe in in_order(recipes):
        if recipe.name in names and not (handed is not None and recipe.base_recipe):
            try:
                if not adapters.runner(recipe).elsewhere:
                    continue
                job = None if recipe.base_recipe in names else job_for(recipe, adapters.arch, snapshot, gather)
            except FactoryError:
                job = None
            jobs.append((recipe, job))
    queue_ahead(jobs, snapshot, adapters, force=force, renew=False)


def _require_runner_for(recipe: Recipe, handed: Path | None, adapters: Adapters) -> None:
    """Raise UsageError for a build on another machine from base images that exist only on this one."""
    if handed is not None and recipe.base_recipe and adapters.runner(recipe).elsewhere:
        raise UsageError(
            f"cannot build {recipe.name} on another machine from base images in {handed}",
            why="--bases is for builds on this machine",
            fix="use --runner local, or put the candidates into the work folder",
        )


def build_one(
    job: Job, snapshot: Snapshot, adapters: Adapters, *, force: bool = False, renew: bool = False
) -> Candidate:
    """Build a job whose base is known, or return an existing candidate with the same inputs.

    renew: do not reuse a candidate that is already published or was found to be unchanged.
    """
    recipe = job.recipe
    refuse_broken(recipe, adapters.all_recipes())
    runner = adapters.runner(recipe)
    ready = None
    if snapshot.engine and not force and not runner.queued(job.target):  # without an engine, the inputs are not known
        ready = candidates.load_if_intact(
            adapters.candidates, recipe.name, job.arch, str(job.inputs.key), adapters.progress
        )
    if ready is not None and renew and is_known(ready, snapshot):
        ready = None
    if ready is not None and not (renew and runner.elsewhere):  # elsewhere, the job must still test it
        adapters.progress.note(f"{recipe.name} ({job.arch}) was already built from the same inputs; using that image")
        return ready
    again = force or (renew and ready is None)
    task = BuildTask(
        request_for(recipe, snapshot, adapters, force=again, fresh=force),
        build=partial(_build_here, job, adapters),
        collect=partial(collected, job, adapters.candidates),
    )
    return runner.build(task)


def built_before(
    recipe: Recipe, arch: str, snapshot: Snapshot, adapters: Adapters, handed: Path | None = None
) -> Candidate | None:
    """Return the candidate to use as a base: intact, and built from the recipe's current inputs; else None.

    handed: folder with candidates of earlier jobs of the same run; these take precedence. A candidate in the work
    folder is used unless a newer release has the same inputs. None also means that the published image has the same
    contents and is used instead. Raises BuildFailed if its tests failed, or if it should be in handed and is not.
    """
    try:
        job = job_for(recipe, arch, snapshot, gather)
    except FactoryError as error:
        _note_unused(recipe, arch, handed, error, adapters)
        return None
    if handed is not None:
        try:
            found = _load_for(job, handed, snapshot, adapters.progress)
        except FactoryError as error:
            _note_unused(recipe, arch, handed, error, adapters)
        else:
            _require_not_failed(found)
            return None if _is_published(found, recipe, snapshot) else found
    here, release = None, snapshot.catalog.entry(recipe.name).newest(arch)
    with contextlib.suppress(FactoryError):
        here = _load_for(job, adapters.candidates, snapshot, adapters.progress)
    if here is not None and (release is None or release.inputs != here.key or release.created <= here.created):
        _require_not_failed(here)
        return None if _is_published(here, recipe, snapshot) else here
    if handed is not None and is_stale(job, snapshot):
        raise BuildFailed(
            f"recipes based on {recipe.name} ({arch}) are not built",
            why=f"{recipe.name} must be built first, and {handed} contains no usable image of it",
            fix=f"see why it failed; then: singfactory build {recipe.name}",
        )
    return None


def _note_unused(recipe: Recipe, arch: str, handed: Path | None, error: FactoryError, adapters: Adapters) -> None:
    """Report why a candidate of an earlier job is not used as a base."""
    if handed is not None and candidates.folder_of(handed, recipe.name, arch).exists():
        adapters.progress.note(f"{recipe.name} ({arch}) in {handed} is not used: {error}")


def _load_for(job: Job, folder: Path, snapshot: Snapshot, progress: Progress) -> Candidate:
    """Return a candidate whose image matches its digest and whose inputs match the job. Raises FactoryError."""
    found = candidates.load(folder, job.recipe.name, job.arch)
    now = job.inputs if snapshot.engine else job.inputs.with_engine(found.engine)
    if str(now.key) != found.key:
        changed = ", ".join(now.changed(found.parts)) or "inputs"
        raise UsageError(f"{job.recipe.name} has changed since it was built", why=f"different now: {changed}")
    candidates.require_intact(found, progress)
    return found


def _is_published(made: Candidate, recipe: Recipe, snapshot: Snapshot) -> bool:
    """True if the newest release has the same contents as a candidate."""
    return is_unchanged(snapshot.catalog.entry(recipe.name).newest(made.arch), recipe, made)


def _require_not_failed(made: Candidate) -> None:
    """Raise BuildFailed if a candidate's tests failed; an untested candidate is accepted."""
    try:
        report = reports.load(made.folder, made.recipe)
    except NotFound:
        return
    if report.sif_digest != made.sif.digest:
        return
    if report.failed:
        first = report.failed[0]
        raise BuildFailed(
            f"recipes based on {made.recipe} ({made.arch}) are not built",
            why=f"the test {first.name!r} of {made.recipe} failed: {first.why}",
            fix=f"correct it, then: singfactory build {made.recipe} && singfactory test {made.recipe}",
        )
    if report.blocking:
        raise BuildFailed(
            f"recipes based on {made.recipe} ({made.arch}) are not built",
            why=f"{made.recipe} will not work on a cluster: {report.blocking[0]}",
            fix=f"correct it, then: singfactory build {made.recipe} && singfactory test {made.recipe}",
        )


def _build_here(job: Job, adapters: Adapters) -> Candidate:
    place = replace(adapters.build_place(), candidates=adapters.candidates)
    return build(job, base_image=_base_image(job.base, adapters), place=place, progress=adapters.progress)


def _base_image(base: Base | None, adapters: Adapters) -> Path | None:
    """Return the SIF of a base that is another recipe; None for other bases."""
    if base is None or base.image is None:
        return None
    if isinstance(base.image, Candidate):
        return base.image.image
    return published_image(
        base.image,
        made=adapters.candidates,
        registry=adapters.registry,
        store=adapters.store,
        progress=adapters.progress,
    )


def published_image(base: Release, *, made: Path, registry: Registry, store: Store, progress: Progress) -> Path:
    """Return the SIF of a release used as a base: its candidate if that is still here, else pulled."""
    ready = candidates.load_if_intact(made, base.recipe, base.arch, base.inputs, progress)
    if ready is not None and ready.sif.digest == base.sif.digest:
        return ready.image
    # By digest: a tag may have moved since planning, and a withdrawn base has none.
    wanted = Reference(base.recipe, digest=base.digest)
    return pull(wanted, registry=registry, store=store, arch=base.arch, progress=progress).path


def collected(job: Job, folder: Path, digest: Digest) -> Candidate:
    """Return the candidate of another machine, with the SIF of this digest. Raises NotFound until it is visible.

    The other machine has its own engine, and may have resolved the digest of the base image a little later.
    """
    name = job.recipe.name
    made = candidates.load(folder, name, job.arch)
    if made.sif.digest != digest or made.image.stat().st_size != made.sif.size:
        raise NotFound(f"{made.folder} does not contain {digest} yet")
    bases = {name for name in {*job.inputs.parts, *made.parts} if is_base(name)}
    other = set(job.inputs.changed(made.parts)) - {"engine", *bases}
    if other:
        raise BuildFailed(
            f"{name} was built from other files than the ones here",
            why=f"different: {', '.join(sorted(other))}",
            fix="use the same recipes and the same version of singfactory on both machines, and build again",
        )
    return made

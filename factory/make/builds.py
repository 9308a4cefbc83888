"""Builds, each upon its base: which candidate is taken as it is, which is built and where, and upon which image."""

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
from factory.records.inputs import gather
from factory.records.job import Base, Job
from factory.records.release import Release
from factory.registry.protocol import Registry
from factory.runners.local import LocalRunner
from factory.runners.protocol import BuildTask
from factory.store.store import Store


@dataclass(frozen=True)
class BuildResult:
    """What became of one recipe that was to be built: its candidate, or the error that stopped it."""

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
    handed: Path | None = None,
) -> Iterator[BuildResult]:
    """Build the named recipes for this machine, published or not, bases first, and yield each as it is done.

    recipes: the named ones and those that they build upon. Of the latter nothing is built: they serve as they are, as
    candidates or published. One that fails stops only what builds upon it. handed: candidates of earlier jobs of the
    same run.
    """
    failed = set()
    for recipe in in_order(recipes):
        named = recipe.name in names
        try:
            if recipe.base_recipe in failed:
                raise BuildFailed(f"{recipe.name} is not built", why=f"its base {recipe.base_recipe} failed")
            if named:
                _require_runner_for(recipe, handed, adapters)
                job = job_for(recipe, adapters.arch, snapshot, gather)
                made: Candidate | None = build_one(job, snapshot, adapters, force=force)
            else:
                made = built_before(recipe, adapters.arch, snapshot, adapters, handed)
        except FactoryError as error:
            failed.add(recipe.name)
            yield BuildResult(recipe, error=error)
            continue
        if made is not None and not _is_published(made, recipe, snapshot):
            snapshot = snapshot.with_built(made)
        if named:
            yield BuildResult(recipe, made)


def _require_runner_for(recipe: Recipe, handed: Path | None, adapters: Adapters) -> None:
    """Raise UsageError for a build on another machine upon images that only this one has."""
    if handed is not None and recipe.base_recipe and not isinstance(adapters.runner(recipe), LocalRunner):
        raise UsageError(
            f"{recipe.name} cannot be built elsewhere upon images in {handed}",
            why="--bases is for builds on this machine",
            fix="--runner local, or put the candidates into the work folder",
        )


def build_one(
    job: Job, snapshot: Snapshot, adapters: Adapters, *, force: bool = False, renew: bool = False
) -> Candidate:
    """Do a job whose base is known, or take the candidate of the same inputs that an interrupted run left.

    renew: but not one whose bytes are published already, or which was found to be unchanged.
    """
    recipe = job.recipe
    refuse_broken(recipe, adapters.all_recipes())
    ready = None
    if snapshot.engine and not force:  # without an engine here, nobody knows what would be built
        ready = candidates.load_if_intact(adapters.candidates, recipe.name, job.arch, str(job.inputs.key))
    if ready is not None and renew:
        releases = snapshot.catalog.entry(recipe.name).releases
        judged = {release.repeat.created for release in releases if release.repeat is not None}
        old = ready.sif.digest in {release.sif.digest for release in releases} or ready.created in judged
        ready = None if old else ready
    if ready is not None:
        adapters.progress.note(f"{recipe.name} ({job.arch}) was built before from the same inputs; taking that image")
        return ready
    task = BuildTask(
        recipe=recipe.name,
        arch=job.arch,
        candidates=adapters.candidates,
        timeout=recipe.build.timeout,
        force=force or renew,
        build=partial(_build_here, job, adapters),
        collect=partial(_collect, job, adapters.candidates),
    )
    return adapters.runner(recipe).build(task)


def built_before(
    recipe: Recipe, arch: str, snapshot: Snapshot, adapters: Adapters, handed: Path | None = None
) -> Candidate | None:
    """The candidate that others may be built upon: intact, and made of the inputs that its recipe has now; else None.

    handed: the folder that earlier jobs of the same run put theirs into; what is there comes first. What only lies in
    the work folder counts unless something younger of the same inputs is published. None, too, when what is published
    has the same contents: that is built upon then. Raises BuildFailed when its tests failed, and when candidates were
    handed over, this one was to be among them, and it is not.
    """
    try:
        job = job_for(recipe, arch, snapshot, gather)
    except FactoryError as error:
        _note_unused(recipe, arch, handed, error, adapters)
        return None
    if handed is not None:
        try:
            found = _load_for(job, handed, snapshot)
        except FactoryError as error:
            _note_unused(recipe, arch, handed, error, adapters)
        else:
            _require_not_failed(found)
            return None if _is_published(found, recipe, snapshot) else found
    here, release = None, snapshot.catalog.entry(recipe.name).newest(arch)
    with contextlib.suppress(FactoryError):
        here = _load_for(job, adapters.candidates, snapshot)
    if here is not None and (release is None or release.inputs != here.key or release.created <= here.created):
        _require_not_failed(here)
        return None if _is_published(here, recipe, snapshot) else here
    if handed is not None and is_stale(job, snapshot):
        raise BuildFailed(
            f"what builds upon {recipe.name} ({arch}) is not built",
            why=f"{recipe.name} was to be built first, and {handed} has no image of it that can be used",
            fix=f"see why it failed; then: singfactory build {recipe.name}",
        )
    return None


def _note_unused(recipe: Recipe, arch: str, handed: Path | None, error: FactoryError, adapters: Adapters) -> None:
    """Say why a candidate that was handed over is not built upon."""
    if handed is not None and candidates.folder_of(handed, recipe.name, arch).exists():
        adapters.progress.note(f"{recipe.name} ({arch}) of {handed} is not used: {error}")


def _load_for(job: Job, folder: Path, snapshot: Snapshot) -> Candidate:
    """A candidate whose image has its digest and whose inputs are those of the job. Raises FactoryError."""
    found = candidates.load(folder, job.recipe.name, job.arch)
    now = job.inputs if snapshot.engine else job.inputs.with_engine(found.engine)
    if str(now.key) != found.key:
        changed = ", ".join(now.changed(found.parts)) or "inputs"
        raise UsageError(f"{job.recipe.name} is not what it was built from", why=f"different now: {changed}")
    candidates.require_intact(found)
    return found


def _is_published(made: Candidate, recipe: Recipe, snapshot: Snapshot) -> bool:
    """Whether what is published has the same contents as a candidate."""
    return is_unchanged(snapshot.catalog.entry(recipe.name).newest(made.arch), recipe, made)


def _require_not_failed(made: Candidate) -> None:
    """Raise BuildFailed when the tests of a candidate failed; one that is not tested yet will do."""
    try:
        report = reports.load(made.folder, made.recipe)
    except NotFound:
        return
    if report.failed and report.sif_digest == made.sif.digest:
        first = report.failed[0]
        raise BuildFailed(
            f"what builds upon {made.recipe} ({made.arch}) is not built",
            why=f"the test {first.name!r} of {made.recipe} failed: {first.why}",
            fix=f"correct it, then: singfactory build {made.recipe} && singfactory test {made.recipe}",
        )


def _build_here(job: Job, adapters: Adapters) -> Candidate:
    place = replace(adapters.build_place(), candidates=adapters.candidates)
    return build(job, base_image=_base_image(job.base, adapters), place=place, progress=adapters.progress)


def _base_image(base: Base | None, adapters: Adapters) -> Path | None:
    """The SIF of a base that is another recipe; None for other bases."""
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
    """The SIF of a release that others build upon: the candidate that it was, if that is still here, else pulled."""
    ready = candidates.load_if_intact(made, base.recipe, base.arch, base.inputs)
    if ready is not None and ready.sif.digest == base.sif.digest:
        return ready.image
    # By digest: a tag may have moved since it was decided what to build upon, and a withdrawn base has none.
    wanted = Reference(base.recipe, digest=base.digest)
    return pull(wanted, registry=registry, store=store, arch=base.arch, progress=progress).path


def _collect(job: Job, folder: Path, digest: Digest) -> Candidate:
    """The candidate that another machine made, with the SIF of this digest; NotFound while it cannot be seen here.

    The other machine has its own engine, and may have asked for the digest of the base image a little later.
    """
    name = job.recipe.name
    made = candidates.load(folder, name, job.arch)
    if made.sif.digest != digest or made.image.stat().st_size != made.sif.size:
        raise NotFound(f"{made.folder} does not hold {digest} yet")
    other = set(job.inputs.changed(made.parts)) - {"engine", "base"}
    if other:
        raise BuildFailed(
            f"{name} was built from other files than those here",
            why=f"different: {', '.join(sorted(other))}",
            fix="let both machines see the same recipes, of the same version of singfactory, and build again",
        )
    return made

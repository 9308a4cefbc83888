"""Plan, build, test and publish recipes in dependency order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from time import monotonic

from factory.errors import BuildFailed, FactoryError
from factory.io.progress import step
from factory.make.adapters import Adapters
from factory.make.ahead import drop_queued, queue_ahead
from factory.make.builds import build_one
from factory.make.tested import report_of, test_one
from factory.plan import bases
from factory.plan.plan import Snapshot, plan, settled
from factory.publish import published
from factory.publish.announce import finish
from factory.publish.publish import Built, publish_set, require_publishable
from factory.publish.readback import ReadBackFailed
from factory.recipes.load import Broken
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records import catalog as catalogs
from factory.records.candidate import Candidate
from factory.records.inputs import GatherInputs, gather, gather_once
from factory.records.job import Job, Kept, Plan, Stuck, Target
from factory.records.release import Release
from factory.records.report import TestReport


@dataclass(frozen=True)
class Made:
    """Result of one job; error is set if it failed. seconds: by stage (build, test, publish).

    candidate is None if nothing was built because its base turned out to be unchanged.
    """

    job: Job
    candidate: Candidate | None = None
    report: TestReport | None = None
    release: Release | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    error: FactoryError | None = None

    @property
    def unchanged(self) -> bool:
        """True if the release existed before: the new build has the same contents, or nothing had to be built."""
        return self.release is not None and (
            self.candidate is None or self.candidate.sif.digest != self.release.sif.digest
        )


def take_snapshot(recipes: Sequence[Recipe], adapters: Adapters) -> Snapshot:
    """Fetch the state that planning starts from: the catalog and the digests of base images."""
    with step(adapters.progress, "read the catalog and the digests of base images"):
        catalog, digests = catalogs.read(adapters.registry), bases.look_up(recipes, adapters.open_host)
        return Snapshot(
            catalog=catalog,
            bases=digests.bases,
            engine=adapters.engine_label,
            now=datetime.now(timezone.utc),
            images=digests.images,
        )


def plan_for(
    recipes: Sequence[Recipe],
    adapters: Adapters,
    before: Snapshot,
    *,
    force: bool = False,
    arch: Sequence[str] = (),
    broken: Sequence[Broken] = (),
    gather_inputs: GatherInputs | None = None,
) -> tuple[Plan, Snapshot]:
    """Plan these recipes. Where the catalog says stale or new, the registry is asked for the actual releases.

    before: from ``take_snapshot``; returned with the catalog completed. arch: only these architectures; all if empty.
    broken: recipes that are reported as stuck. gather_inputs: reads the inputs; by default each recipe is read once.
    """
    gather_inputs = gather_inputs or gather_once()
    first = plan(recipes, before, gather_inputs, force=force, arch=arch, broken=broken)
    versions = {job.recipe.name: job.recipe.version for job in first.jobs}
    catalog = published.reconciled(adapters.registry, before.catalog, versions)
    if catalog == before.catalog:
        return first, before
    snapshot = replace(before, catalog=catalog)
    return plan(recipes, snapshot, gather_inputs, force=force, arch=arch, broken=broken), snapshot


def make(
    recipes: Sequence[Recipe], adapters: Adapters, *, force: bool = False, broken: Sequence[Broken] = ()
) -> tuple[Plan, tuple[Made, ...]]:
    """Build, test and publish everything for this architecture whose published image is missing or out of date.

    One recipe's failure does not stop the others. broken: recipes that are reported as stuck.
    """
    for recipe in recipes:
        if elsewhere := [arch for arch in recipe.build.arch if arch != adapters.arch]:
            adapters.progress.note(
                f"{recipe.name} for {', '.join(elsewhere)} must be built on a machine of that architecture"
            )
    before = take_snapshot(recipes, adapters)
    decided, snapshot = plan_for(recipes, adapters, before, force=force, arch=(adapters.arch,), broken=broken)
    unread = finish_kept(decided, before, snapshot, adapters)
    decided = replace(decided, stuck=(*decided.stuck, *unread))
    not_read = {(one.recipe.name, one.arch) for one in unread}
    done: dict[Target, Made] = {}
    waiting = [job for job in decided.jobs if (job.recipe.base_recipe, job.arch) not in not_read]
    jobs = [(job.recipe, None if job.waits_for else job) for job in waiting]
    queue_ahead(jobs, snapshot, adapters, force=force, renew=True)
    for job in decided.jobs:
        if (job.recipe.base_recipe, job.arch) in not_read:
            why = f"its base {job.recipe.base_recipe} could not be read back"
            done[job.target] = Made(job, error=BuildFailed(f"{job.title} is not built", why=why))
            continue
        base = done.get((job.waits_for, job.arch))
        if base is not None and base.error is not None:
            error = BuildFailed(f"{job.title} is not built", why=f"its base {job.waits_for} failed")
            done[job.target] = Made(job, error=error)
            drop_queued(job.recipe, adapters)
            continue
        made = _make_one(job, snapshot, adapters, force=force)
        if made.release is not None:
            entry = snapshot.catalog.entry(job.recipe.name).with_release(made.release)
            snapshot = replace(snapshot, catalog=snapshot.catalog.with_entry(entry))
        done[job.target] = made
    return decided, tuple(done.values())


def finish_kept(decided: Plan, before: Snapshot, snapshot: Snapshot, adapters: Adapters) -> tuple[Stuck, ...]:
    """Update the catalog for recipes that are not built: releases of interrupted runs, changed descriptions.

    before, snapshot: the input and the output of ``plan_for``. Returns the releases that could not be read back; they
    are not announced.
    """
    unread: list[Stuck] = []
    for kept in decided.kept:
        listed = before.catalog.entry(kept.recipe.name)
        entry = snapshot.catalog.entry(kept.recipe.name).described_by(kept.recipe)
        if entry.releases and entry != listed:
            late = kept.release.tag if kept.release and kept.release not in listed.releases else None
            try:
                finish(
                    kept.recipe,
                    late,
                    registry=adapters.registry,
                    progress=adapters.progress,
                    read_back=adapters.read_back,
                )
            except ReadBackFailed as error:
                unread.append(Stuck(kept.recipe, kept.arch, error))
    return tuple(unread)


def publish_one(recipe: Recipe, made: Candidate, report: TestReport, adapters: Adapters) -> Release:
    """Publish a tested candidate, after hashing its image to verify that it matches its record.

    Raises IntegrityFailure before anything is sent, and the errors of ``publish_set``.
    """
    candidates.require_intact(made, adapters.progress)
    (release,) = _publish(recipe, [(made, report)], adapters)
    return release


def require_ready(
    recipe: Recipe, made: Candidate, report: TestReport, adapters: Adapters, gather_inputs: GatherInputs = gather
) -> None:
    """Run the checks of ``publish_one`` without sending anything; raises the same errors."""
    candidates.require_intact(made, adapters.progress)
    require_publishable(recipe, made, report, gather_inputs)


def publish_together(
    recipe: Recipe, built: Sequence[Built], adapters: Adapters, gather_inputs: GatherInputs = gather
) -> tuple[Release, ...]:
    """Publish ready candidates for different architectures under one build number; see ``publish_set``."""
    return _publish(recipe, built, adapters, gather_inputs)


def _publish(
    recipe: Recipe, built: Sequence[Built], adapters: Adapters, gather_inputs: GatherInputs = gather
) -> tuple[Release, ...]:
    return publish_set(
        recipe,
        built,
        registry=adapters.registry,
        origin=adapters.origin(recipe),
        progress=adapters.progress,
        read_back=adapters.read_back,
        gather_inputs=gather_inputs,
    )


def _make_one(job: Job, snapshot: Snapshot, adapters: Adapters, *, force: bool) -> Made:
    made = Made(job)
    recipe = job.recipe
    try:
        decision = settled(job, snapshot, force=force) if job.waits_for else job
        if isinstance(decision, Kept):
            drop_queued(recipe, adapters)
            return replace(made, release=decision.release)
        made = replace(made, job=decision)
        with _timed(made, "build"):
            candidate = build_one(decision, snapshot, adapters, force=force, renew=True)
        made = replace(made, candidate=candidate)
        with _timed(made, "test"):
            elsewhere = adapters.runner(recipe).elsewhere
            report = report_of(recipe, candidate) if elsewhere else test_one(recipe, candidate, adapters)
        made = replace(made, report=report)
        with _timed(made, "publish"):
            release = publish_one(recipe, candidate, report, adapters)
        return replace(made, release=release)
    except FactoryError as error:
        return replace(made, error=error)


@contextlib.contextmanager
def _timed(made: Made, stage: str) -> Iterator[None]:
    """Record the wall time of a block in ``made.seconds``, also if it fails."""
    started = monotonic()
    try:
        yield
    finally:
        made.seconds[stage] = round(monotonic() - started, 3)

"""The whole factory in one call: plan, build, test, publish, in dependency order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import monotonic

from factory import bases, published
from factory import candidate as candidates
from factory import catalog as catalogs
from factory import report as reports
from factory.announce import finish
from factory.build import BuildPlace, build
from factory.candidate import Candidate
from factory.check import CheckPlace, check, require_passed
from factory.digest import Digest
from factory.errors import BuildFailed, FactoryError, IntegrityFailure, NotFound, UsageError
from factory.inputs import Inputs, gather
from factory.io import plain
from factory.io.progress import Progress
from factory.plan import Job, Known, Plan, Stuck, base_digest, base_release, plan
from factory.publish import Built, Origin, is_unchanged, publish_set, require_publishable
from factory.readback import ReadBack, ReadBackFailed
from factory.recipes.lint import refuse_broken
from factory.recipes.load import Broken
from factory.recipes.model import Recipe
from factory.registry.protocol import Registry
from factory.release import Release
from factory.report import TestReport
from factory.runners.protocol import BuildTask, Runner
from factory.store.store import Store


@dataclass(frozen=True)
class Works:
    """All that the factory works with. engine_label is '' where there is no engine; then it can only plan.

    arch is this machine's: what it makes images for. place and check_place are asked for when something has to be
    built; they raise where that is impossible. runner gives the runner of a recipe. read_back: the second client that
    has to read a release before it is announced.
    """

    registry: Registry
    store: Store
    candidates: Path
    arch: str
    engine_label: str
    place: Callable[[], BuildPlace]
    check_place: Callable[[], CheckPlace]
    runner: Callable[[Recipe], Runner]
    open_host: bases.OpenHost
    origin: Callable[[Recipe], Origin]
    all_recipes: Callable[[], Sequence[Recipe]]
    progress: Progress
    read_back: ReadBack | None = None


@dataclass(frozen=True)
class Made:
    """What became of one job; error is set when it failed. seconds by stage: build, test, publish.

    candidate: None where nothing was built: what it builds upon turned out to be what it was built upon before.
    """

    job: Job
    candidate: Candidate | None = None
    report: TestReport | None = None
    release: Release | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    error: FactoryError | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the release was there before: what was built has the same contents, or nothing had to be built."""
        return self.release is not None and (
            self.candidate is None or self.candidate.sif.digest != self.release.sif.digest
        )


def look(recipes: Sequence[Recipe], works: Works) -> Known:
    """Everything that planning needs to know, fetched once."""
    return Known(
        catalog=catalogs.read(works.registry),
        bases=bases.look_up(recipes, works.open_host),
        engine=works.engine_label,
        now=datetime.now(timezone.utc),
    )


def plan_for(
    recipes: Sequence[Recipe],
    works: Works,
    seen: Known,
    *,
    force: bool = False,
    arch: Sequence[str] = (),
    broken: Sequence[Broken] = (),
) -> tuple[Plan, Known]:
    """The plan for these recipes. Before anything is built anew, the registry itself is asked what it has.

    seen: what ``look`` saw; returned with the catalog caught up. arch: only these architectures; all when empty.
    broken: recipes that are told as stuck.
    """
    first = plan(recipes, seen, gather, force=force, arch=arch, broken=broken)
    versions = {job.recipe.name: job.recipe.version for job in first.jobs}
    catalog = published.reconciled(works.registry, seen.catalog, versions)
    if catalog == seen.catalog:
        return first, seen
    known = replace(seen, catalog=catalog)
    return plan(recipes, known, gather, force=force, arch=arch, broken=broken), known


def make(
    recipes: Sequence[Recipe], works: Works, *, force: bool = False, broken: Sequence[Broken] = ()
) -> tuple[Plan, tuple[Made, ...]]:
    """Make everything for this machine's architecture that is not published as it should be.

    One recipe's failure does not stop the others. broken: recipes that are told as stuck.
    """
    for recipe in recipes:
        if elsewhere := [arch for arch in recipe.build.arch if arch != works.arch]:
            works.progress.note(f"{recipe.name} for {', '.join(elsewhere)} is made on such machines, not on this one")
    seen = look(recipes, works)
    decided, known = plan_for(recipes, works, seen, force=force, arch=(works.arch,), broken=broken)
    unread = finish_kept(decided, seen, known, works)
    decided = replace(decided, stuck=(*decided.stuck, *unread))
    done: list[Made] = []
    for job in decided.jobs:
        base = (job.waits_for, job.arch)
        if any((one.recipe.name, one.arch) == (job.recipe.base_recipe, job.arch) for one in unread):
            why = f"its base {job.recipe.base_recipe} could not be read back"
            done.append(Made(job, error=BuildFailed(f"{job.title} is not built", why=why)))
            continue
        failed = next((one for one in done if (one.job.recipe.name, one.job.arch) == base and one.error), None)
        if failed is not None:
            error = BuildFailed(f"{job.title} is not built", why=f"its base {job.waits_for} failed")
            done.append(Made(job, error=error))
            continue
        kept = plan([job.recipe], known, gather, arch=(job.arch,)).kept if job.waits_for and not force else ()
        made = Made(job, release=kept[0].release) if kept else _make_one(job, known, works, force=force)
        if made.release is not None:
            entry = known.catalog.entry(job.recipe.name).with_release(made.release)
            known = replace(known, catalog=known.catalog.with_entry(entry))
        done.append(made)
    return decided, tuple(done)


def finish_kept(decided: Plan, seen: Known, known: Known, works: Works) -> tuple[Stuck, ...]:
    """Bring the catalog up to date for what is not built: releases of runs that died, and what recipes say today.

    seen, known: before and after the registry itself was asked, as ``look`` and ``plan_for`` gave them. Returns the
    releases that could not be read back; they are not announced.
    """
    unread: list[Stuck] = []
    for kept in decided.kept:
        before = seen.catalog.entry(kept.recipe.name)
        entry = known.catalog.entry(kept.recipe.name).described_by(kept.recipe)
        if entry.releases and entry != before:
            late = kept.release.tag if kept.release and kept.release not in before.releases else None
            try:
                finish(
                    kept.recipe,
                    late,
                    registry=works.registry,
                    progress=works.progress,
                    read_back=works.read_back,
                )
            except ReadBackFailed as error:
                unread.append(Stuck(kept.recipe, kept.arch, error))
    return tuple(unread)


def inputs_of(recipe: Recipe, arch: str, known: Known) -> Inputs:
    """The inputs as they are at this moment. Raises FactoryError for a base that cannot be had."""
    return gather(recipe, arch, base_digest(recipe, arch, known), known.engine)


def build_one(
    recipe: Recipe, arch: str, known: Known, works: Works, *, force: bool = False, renew: bool = False
) -> Candidate:
    """Build a recipe, or take the whole candidate of the same inputs that an interrupted run left.

    renew: but not one whose bytes are published already, or which was found to be unchanged.
    """
    refuse_broken(recipe, works.all_recipes())
    inputs = inputs_of(recipe, arch, known)
    ready = None if force else candidates.load_if_whole(works.candidates, recipe.name, arch, str(inputs.key))
    if ready is not None and renew:
        releases = known.catalog.entry(recipe.name).releases
        judged = {release.repeat.created for release in releases if release.repeat is not None}
        old = ready.sif.digest in {release.sif.digest for release in releases} or ready.created in judged
        ready = None if old else ready
    if ready is not None:
        works.progress.note(f"{recipe.name} ({arch}) was built before from the same inputs; taking that image")
        return ready
    task = BuildTask(
        recipe=recipe.name,
        arch=arch,
        candidates=works.candidates,
        timeout=recipe.build.timeout,
        force=force or renew,
        build=partial(_build_here, recipe, arch, inputs, known, works),
        collect=partial(_collect, recipe, arch, inputs, works.candidates),
    )
    return works.runner(recipe).build(task)


def built_before(recipe: Recipe, arch: str, known: Known, works: Works, handed: Path | None = None) -> Candidate | None:
    """The candidate that others may be built upon: whole, and made of the inputs that its recipe has now; else None.

    handed: the folder that earlier jobs of the same run put theirs into; what is there comes first. What only lies in
    the work folder counts unless something younger of the same inputs is published. Raises BuildFailed when its tests
    failed, and when candidates were handed over, this one was to be among them, and it is not.
    """
    if handed is not None:
        try:
            found = _whole(handed, recipe, arch, known)
        except FactoryError as error:
            if candidates.folder_of(handed, recipe.name, arch).exists():
                works.progress.note(f"{recipe.name} ({arch}) of {handed} is not used: {error}")
        else:
            return needed(_not_failed(found), recipe, known)
    here, release = None, known.catalog.entry(recipe.name).newest(arch)
    with contextlib.suppress(FactoryError):
        here = _whole(works.candidates, recipe, arch, known)
    if here is not None and (release is None or release.inputs != here.key or release.created <= here.created):
        return needed(_not_failed(here), recipe, known)
    if handed is not None and plan([recipe], known, gather, arch=(arch,)).jobs:
        raise BuildFailed(
            f"what builds upon {recipe.name} ({arch}) is not built",
            why=f"{recipe.name} was to be built first, and {handed} has no image of it that can be used",
            fix=f"see why it failed; then: singfactory build {recipe.name}",
        )
    return None


def needed(made: Candidate, recipe: Recipe, known: Known) -> Candidate | None:
    """The candidate, unless what is published has the same contents: that one is built upon then."""
    return None if is_unchanged(known.catalog.entry(recipe.name).newest(made.arch), recipe, made) else made


def _not_failed(made: Candidate) -> Candidate:
    """The candidate, tested or not tested yet. Raises BuildFailed when its tests failed."""
    try:
        report = reports.load(made.folder, made.recipe)
    except NotFound:
        return made
    if report.failed and report.sif_digest == made.sif.digest:
        first = report.failed[0]
        raise BuildFailed(
            f"what builds upon {made.recipe} ({made.arch}) is not built",
            why=f"the test {first.name!r} of {made.recipe} failed: {first.why}",
            fix=f"correct it, then: singfactory build {made.recipe} && singfactory test {made.recipe}",
        )
    return made


def _whole(folder: Path, recipe: Recipe, arch: str, known: Known) -> Candidate:
    """A candidate whose image has its digest and whose inputs are those of now. Raises FactoryError."""
    found = candidates.load(folder, recipe.name, arch)
    now = gather(recipe, arch, base_digest(recipe, arch, known), known.engine or found.engine)
    if str(now.key) != found.key:
        changed = ", ".join(now.changed(found.parts)) or "inputs"
        raise UsageError(f"{recipe.name} is not what it was built from", why=f"different now: {changed}")
    return _checked(found)


def _checked(made: Candidate) -> Candidate:
    """The candidate, once its image was hashed. Raises IntegrityFailure when it is not what the build record says."""
    candidates.require_image(made)
    candidates.require_size(made)
    try:
        digest, size = plain.digest_of(made.image)
    except OSError as error:
        raise IntegrityFailure(f"{made.image} cannot be read", why=error.strerror or "") from error
    if (digest, size) != (made.sif.digest, made.sif.size):
        raise IntegrityFailure(
            f"{made.image} is not the image that was built",
            why=f"wanted {made.sif.digest} and {made.sif.size} bytes, got {digest} and {size}",
            fix=f"build it again: singfactory build --force {made.recipe}",
        )
    return made


def _build_here(recipe: Recipe, arch: str, inputs: Inputs, known: Known, works: Works) -> Candidate:
    place = replace(works.place(), candidates=works.candidates)
    image = _base_image(recipe, arch, known, works)
    return build(recipe, arch, inputs=inputs, base_image=image, place=place, progress=works.progress)


def _base_image(recipe: Recipe, arch: str, known: Known, works: Works) -> Path | None:
    """The SIF that a recipe builds upon, the one whose digest ``base_digest`` gives; None for other bases."""
    built = known.built.get((recipe.base_recipe, arch))
    if built is not None:
        return built.image
    base = base_release(recipe, arch, known)
    if base is None:
        return None
    return bases.base_image(
        base, made=works.candidates, registry=works.registry, store=works.store, progress=works.progress
    )


def _collect(recipe: Recipe, arch: str, wanted: Inputs, folder: Path, digest: Digest) -> Candidate:
    """The candidate that another machine made, with the SIF of this digest; NotFound until it is to be seen here.

    The other machine has its own engine, and may have looked at the base image a little later.
    """
    made = candidates.load(folder, recipe.name, arch)
    if made.sif.digest != digest or made.image.stat().st_size != made.sif.size:
        raise NotFound(f"{made.folder} does not hold {digest} yet")
    other = set(wanted.changed(made.parts)) - {"engine", "base"}
    if other:
        raise BuildFailed(
            f"{recipe.name} was built from other files than those here",
            why=f"different: {', '.join(sorted(other))}",
            fix="let both machines see the same recipes, of the same version of singfactory, and build again",
        )
    return made


def test_one(recipe: Recipe, made: Candidate, works: Works) -> TestReport:
    """Test a candidate and keep the report beside it. Raises TestsFailed after keeping it."""
    report = check(recipe, made.image, made.sif.digest, works.check_place(), works.progress)
    report.save(made.folder)
    require_passed(report, made.folder)
    return report


def publish_one(recipe: Recipe, made: Candidate, report: TestReport, works: Works) -> Release:
    """Publish a tested candidate, after a look at its bytes: whatever handed them over, they are those of the records.

    Raises IntegrityFailure before anything is sent, and what ``publish`` raises.
    """
    _checked(made)
    (release,) = publish_together(recipe, [(made, report)], works)
    return release


def require_ready(recipe: Recipe, made: Candidate, report: TestReport) -> None:
    """Raise what ``publish_one`` would raise before it sends anything; nothing is sent here."""
    _checked(made)
    require_publishable(recipe, made, report)


def publish_together(recipe: Recipe, built: Sequence[Built], works: Works) -> tuple[Release, ...]:
    """Publish candidates for different architectures, each of which is ready, under one number; see ``publish_set``."""
    return publish_set(
        recipe,
        built,
        registry=works.registry,
        origin=works.origin(recipe),
        progress=works.progress,
        read_back=works.read_back,
    )


def _make_one(job: Job, known: Known, works: Works, *, force: bool) -> Made:
    made = Made(job)
    recipe = job.recipe
    try:
        with _timed(made, "build"):
            candidate = build_one(recipe, job.arch, known, works, force=force, renew=True)
        made = replace(made, candidate=candidate)
        with _timed(made, "test"):
            report = test_one(recipe, candidate, works)
        made = replace(made, report=report)
        with _timed(made, "publish"):
            release = publish_one(recipe, candidate, report, works)
        return replace(made, release=release)
    except FactoryError as error:
        return replace(made, error=error)


@contextlib.contextmanager
def _timed(made: Made, stage: str) -> Iterator[None]:
    """Measure the wall seconds of a block into ``made.seconds``, of a failed one too."""
    started = monotonic()
    try:
        yield
    finally:
        made.seconds[stage] = round(monotonic() - started, 3)

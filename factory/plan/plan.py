"""Plan: decide what must be built, and why or why not. A pure function of a snapshot and the recipes' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from factory.errors import FactoryError, RecipeError
from factory.recipes.load import Broken
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate
from factory.records.catalog import Catalog
from factory.records.inputs import GatherInputs, Inputs, is_base
from factory.records.job import Base, Job, Kept, Plan, Stuck
from factory.records.release import Release


@dataclass(frozen=True)
class Snapshot:
    """The state that a plan is based on.

    bases: by recipe, the digest of its docker:// base, or the error of a lookup. images: by recipe, the digests of its
    other docker:// images by name. engine: name and version of the
    engine that would build, '' without one. built: complete candidates of the recipes' current inputs, by recipe and
    architecture; as bases they take precedence over published images.
    """

    catalog: Catalog
    bases: Mapping[str, str | FactoryError]
    engine: str
    now: datetime
    built: Mapping[tuple[str, str], Candidate] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def with_built(self, made: Candidate) -> Snapshot:
        """Return the snapshot with one more candidate."""
        return replace(self, built={**self.built, (made.recipe, made.arch): made})


def plan(
    recipes: Sequence[Recipe],
    snapshot: Snapshot,
    gather: GatherInputs,
    *,
    force: bool = False,
    arch: Iterable[str] = (),
    broken: Sequence[Broken] = (),
) -> Plan:
    """Plan each recipe and architecture. recipes: the requested recipes and the recipes that they are based on.

    gather reads a recipe's inputs; it is called at most once for each architecture. arch: only these architectures;
    empty for all. broken: recipes that could not be loaded; they do not stop the others.
    """
    only = frozenset(arch)
    wrong = [(one, arch) for one in broken for arch in one.recipe.build.arch if not only or arch in only]
    result = Plan(stuck=tuple(Stuck(one.recipe, arch, one.error) for one, arch in wrong))
    for recipe in in_order(recipes):
        for one in recipe.build.arch:
            if not only or one in only:
                result = _decide(result, recipe, one, snapshot, gather, force=force)
    return result


def in_order(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Return the recipes, bases first, otherwise by name. Raises RecipeError for a circular dependency."""
    by_name = {recipe.name: recipe for recipe in recipes}
    done: dict[str, Recipe] = {}
    for name in sorted(by_name):
        waiting: dict[str, Recipe] = {}  # a recipe, its base, the base of that, …
        here = by_name[name] if name not in done else None
        while here is not None:
            if here.name in waiting:
                names = list(waiting)
                circle = " -> ".join((*names[names.index(here.name) :], here.name))
                raise RecipeError(
                    f"circular dependency between recipes: {circle}", fix="change build.base in one of them"
                )
            waiting[here.name] = here
            here = by_name.get(here.base_recipe) if here.base_recipe not in done else None
        done |= dict(reversed(waiting.items()))
    return tuple(done.values())


def job_for(
    recipe: Recipe, arch: str, snapshot: Snapshot, gather: GatherInputs, reasons: tuple[str, ...] = ("asked for",)
) -> Job:
    """Return the job of building a recipe, published or not. Raises FactoryError if its base is not available."""
    base = base_of(recipe, arch, snapshot)
    return Job(recipe, arch, reasons, _inputs(recipe, arch, base, snapshot, gather), base)


def settled(job: Job, snapshot: Snapshot, *, force: bool = False) -> Job | Kept:
    """Decide again about a job whose base has been built since: the base may be unchanged.

    Uses the inputs in the job. Raises RecipeError if there is still no base.
    """
    ready = job.with_base(base_of(job.recipe, job.arch, snapshot))
    if force or is_stale(ready, snapshot):
        return ready
    return _kept(ready, snapshot)


def is_stale(job: Job, snapshot: Snapshot) -> bool:
    """Return True if a job with a known base must be built, given the snapshot."""
    if job.recipe.lifecycle.status == "withdrawn":
        return False
    return bool(_reasons(job.recipe, _newest(job.recipe, job.arch, snapshot), job.inputs, snapshot.now))


def _decide(result: Plan, recipe: Recipe, arch: str, snapshot: Snapshot, gather: GatherInputs, *, force: bool) -> Plan:
    release = _newest(recipe, arch, snapshot)
    if recipe.lifecycle.status == "withdrawn":
        return replace(result, kept=(*result.kept, Kept(recipe, arch, None, "withdrawn")))
    first = next((job for job in result.jobs if job.target == (recipe.base_recipe, arch)), None)
    waits_for, wave = (first.recipe.name, first.wave + 1) if first is not None else ("", 0)
    follows = first is not None and (release is None or force or "base-changed" in recipe.rebuild.when)
    try:
        base = Base() if follows else base_of(recipe, arch, snapshot)
        inputs = _inputs(recipe, arch, base, snapshot, gather)
    except FactoryError as error:
        return replace(result, stuck=(*result.stuck, Stuck(recipe, arch, error)))
    reasons: tuple[str, ...] = (f"its base {waits_for} is built first",)
    if not follows:
        reasons = _reasons(recipe, release, inputs, snapshot.now) + (("forced",) if force else ())
    job = Job(recipe, arch, reasons, inputs, base)
    if not reasons:
        return replace(result, kept=(*result.kept, _kept(job, snapshot)))
    if waits_for:
        job = replace(job, inputs=inputs.with_base(""), base=None, waits_for=waits_for, wave=wave)
    return replace(result, jobs=(*result.jobs, job))


def base_of(recipe: Recipe, arch: str, snapshot: Snapshot) -> Base:
    """Return a recipe's base: a pinned image, or another recipe's SIF. Raises FactoryError.

    For a recipe, the candidate takes precedence over the published image.
    """
    found = snapshot.bases.get(recipe.name, "")
    if isinstance(found, FactoryError):
        raise found
    others = snapshot.images.get(recipe.name, {})
    if recipe.base_recipe:
        image = snapshot.built.get((recipe.base_recipe, arch)) or _base_release(recipe, arch, snapshot)
        return Base(str(image.sif.digest), image, others)
    return Base(found, others=others)


def _inputs(recipe: Recipe, arch: str, base: Base, snapshot: Snapshot, gather: GatherInputs) -> Inputs:
    return gather(recipe, arch, base.digest, _engine(recipe, arch, snapshot), base.others)


def _base_release(recipe: Recipe, arch: str, snapshot: Snapshot) -> Release:
    release = snapshot.catalog.entry(recipe.base_recipe).newest(arch)
    if release is None:
        raise RecipeError(
            f"{recipe.name} is based on {recipe.base_recipe}, which is not published for {arch}",
            fix=f"singfactory make {recipe.base_recipe} {recipe.name}; if it is published but private, log in",
        )
    return release


def _newest(recipe: Recipe, arch: str, snapshot: Snapshot) -> Release | None:
    return snapshot.catalog.entry(recipe.name).newest(arch)


def _engine(recipe: Recipe, arch: str, snapshot: Snapshot) -> str:
    """Return the engine that would build; without one, the release's engine, so that it counts as unchanged."""
    release = _newest(recipe, arch, snapshot)
    return snapshot.engine or (release.engine if release else "")


def _kept(job: Job, snapshot: Snapshot) -> Kept:
    release = _newest(job.recipe, job.arch, snapshot)
    return Kept(job.recipe, job.arch, release, _why_kept(release, job.inputs))


def _reasons(recipe: Recipe, release: Release | None, inputs: Inputs, now: datetime) -> tuple[str, ...]:
    """Return why an image must be built; empty if the release is current, or if `[rebuild] when` excludes it."""
    if release is None:
        return ("new: nothing is published",)
    reasons = []
    latest = release.repeat or release
    inputs = inputs.recorded_in(latest.parts)
    if str(inputs.key) not in (release.inputs, latest.inputs):
        changed = inputs.changed(latest.parts)
        kinds = {_kind_of(part) for part in changed} or {"inputs-changed"}
        wanted = set(recipe.rebuild.when)
        if "inputs-changed" in wanted:
            wanted.add("engine-changed")  # the engine is an input too; "engine-changed" alone covers nothing else
        if kinds & wanted:
            reasons.append(f"changed: {', '.join(changed) or 'inputs'}")
    if recipe.rebuild.max_age is not None:
        age = now - _time(latest.created, now)
        if age > recipe.rebuild.max_age:
            reasons.append(f"too old: {age.days} days, max_age is {_days(recipe.rebuild.max_age)}")
    return tuple(reasons)


def _why_kept(release: Release | None, inputs: Inputs) -> str:
    if release is None:
        return ""
    latest = release.repeat or release
    inputs = inputs.recorded_in(latest.parts)
    if str(inputs.key) == release.inputs:
        return f"{release.tag} has these inputs"
    if str(inputs.key) == latest.inputs:
        return f"{release.tag} has the same contents"
    changed = ", ".join(inputs.changed(latest.parts)) or "inputs"
    return f"{release.tag} stays: {changed} changed, but [rebuild] when does not include that"


def _kind_of(part: str) -> str:
    return "base-changed" if is_base(part) else "engine-changed" if part == "engine" else "inputs-changed"


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days else f"{span.total_seconds() / 3600:.0f} hours"

"""What must be built and why, and what must not and why: a pure function of what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from factory.candidate import Candidate
from factory.catalog import Catalog
from factory.errors import FactoryError, RecipeError
from factory.inputs import Inputs
from factory.recipes.load import Broken
from factory.recipes.model import Recipe
from factory.release import Release

GatherInputs = Callable[[Recipe, str, str, str], Inputs]


@dataclass(frozen=True)
class Job:
    """One recipe for one architecture that must be built. waits_for: the recipe whose image it needs first."""

    recipe: Recipe
    arch: str
    reasons: tuple[str, ...]
    waits_for: str = ""
    wave: int = 0

    @property
    def title(self) -> str:
        """For people: ``pytorch-2.1 (amd64)``."""
        return f"{self.recipe.name} ({self.arch})"


@dataclass(frozen=True)
class Kept:
    """One recipe for one architecture that is published as it should be; release is None when withdrawn."""

    recipe: Recipe
    arch: str
    release: Release | None
    why: str


@dataclass(frozen=True)
class Stuck:
    """One recipe for which nothing can be said, and why."""

    recipe: Recipe
    arch: str
    error: FactoryError


@dataclass(frozen=True)
class Plan:
    """jobs are in an order that respects recipe:// bases; wave n needs only images of waves before it."""

    jobs: tuple[Job, ...] = ()
    kept: tuple[Kept, ...] = ()
    stuck: tuple[Stuck, ...] = ()


@dataclass(frozen=True)
class Known:
    """What planning looks at. bases: the digest of each recipe's docker:// base, or why it could not be had.

    engine: name and version of the engine that would build, '' where there is none to ask. built: by recipe and
    architecture, whole candidates of the inputs that their recipes have now; what builds upon these recipes is built
    upon them, published or not.
    """

    catalog: Catalog
    bases: Mapping[str, str | FactoryError]
    engine: str
    now: datetime
    built: Mapping[tuple[str, str], Candidate] = field(default_factory=dict)

    def with_built(self, made: Candidate) -> Known:
        """The same, and a candidate more."""
        return replace(self, built={**self.built, (made.recipe, made.arch): made})


def plan(
    recipes: Sequence[Recipe],
    known: Known,
    gather: GatherInputs,
    *,
    force: bool = False,
    arch: Iterable[str] = (),
    broken: Sequence[Broken] = (),
) -> Plan:
    """Decide for each recipe and architecture. recipes: those asked for and the recipes that they build upon.

    arch: only these architectures; all when empty. broken: recipes that are stuck, and stop no others.
    """
    only = frozenset(arch)
    told = [(one, arch) for one in broken for arch in one.recipe.build.arch if not only or arch in only]
    result = Plan(stuck=tuple(Stuck(one.recipe, arch, one.error) for one, arch in told))
    for recipe in in_order(recipes):
        for one in recipe.build.arch:
            if not only or one in only:
                result = _decide(result, recipe, one, known, gather, force=force)
    return result


def in_order(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Recipes after the recipes that they build upon; else by name. Raises RecipeError for a circle."""
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
                    f"recipes build upon each other in a circle: {circle}", fix="change build.base in one of them"
                )
            waiting[here.name] = here
            here = by_name.get(here.base_recipe) if here.base_recipe not in done else None
        done |= dict(reversed(waiting.items()))
    return tuple(done.values())


def _decide(result: Plan, recipe: Recipe, arch: str, known: Known, gather: GatherInputs, *, force: bool) -> Plan:
    release = known.catalog.entry(recipe.name).newest(arch)
    if recipe.lifecycle.status == "withdrawn":
        return replace(result, kept=(*result.kept, Kept(recipe, arch, None, "withdrawn")))
    base_job = next((job for job in result.jobs if (job.recipe.name, job.arch) == (recipe.base_recipe, arch)), None)
    waits_for, wave = (base_job.recipe.name, base_job.wave + 1) if base_job is not None else ("", 0)
    if base_job is not None and (release is None or force or "base-changed" in recipe.rebuild.when):
        job = Job(recipe, arch, (f"its base {recipe.base_recipe} is built first",), waits_for, wave)
        return replace(result, jobs=(*result.jobs, job))
    try:
        base = base_digest(recipe, arch, known)
        inputs = gather(recipe, arch, base, known.engine or (release.engine if release else ""))
    except FactoryError as error:
        return replace(result, stuck=(*result.stuck, Stuck(recipe, arch, error)))
    if release is None:
        reasons: tuple[str, ...] = ("new: nothing is published",)
    else:
        reasons = _reasons(recipe, release, inputs, known.now)
    if force:
        reasons = (*reasons, "forced")
    if reasons:
        return replace(result, jobs=(*result.jobs, Job(recipe, arch, reasons, waits_for, wave)))
    return replace(result, kept=(*result.kept, Kept(recipe, arch, release, _why_kept(release, inputs))))


def base_digest(recipe: Recipe, arch: str, known: Known) -> str:
    """The digest of what a recipe builds upon: a pinned image, or another recipe's SIF. Raises FactoryError.

    Of another recipe, what was built counts before what is published.
    """
    built = known.built.get((recipe.base_recipe, arch))
    if built is not None:
        return str(built.sif.digest)
    release = base_release(recipe, arch, known)
    if release is not None:
        return str(release.sif.digest)
    found = known.bases.get(recipe.name, "")
    if isinstance(found, FactoryError):
        raise found
    return found


def base_release(recipe: Recipe, arch: str, known: Known) -> Release | None:
    """The release of a recipe:// base that would be built upon; None for other bases. Raises RecipeError."""
    if not recipe.base_recipe:
        return None
    release = known.catalog.entry(recipe.base_recipe).newest(arch)
    if release is None:
        raise RecipeError(
            f"{recipe.name} builds upon {recipe.base_recipe}, of which nothing is published for {arch}",
            fix=f"singfactory make {recipe.base_recipe} {recipe.name}",
        )
    return release


def _reasons(recipe: Recipe, release: Release, inputs: Inputs, now: datetime) -> tuple[str, ...]:
    """Why a published image is stale; empty when it is not, or when `[rebuild] when` leaves it."""
    reasons = []
    latest = release.repeat or release
    if str(inputs.key) not in (release.inputs, latest.inputs):
        changed = inputs.changed(latest.parts)
        kinds = {_kind_of(part) for part in changed} or {"inputs-changed"}
        wanted = set(recipe.rebuild.when)
        if "inputs-changed" in wanted:
            wanted.add("engine-changed")  # an engine is an input; naming it alone rebuilds for nothing else
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
    if str(inputs.key) == release.inputs:
        return f"{release.tag} has these inputs"
    latest = release.repeat or release
    if str(inputs.key) == latest.inputs:
        return f"{release.tag} is what these inputs give"
    changed = ", ".join(inputs.changed(latest.parts)) or "inputs"
    return f"{release.tag} stays: {changed} changed, and [rebuild] when leaves that"


def _kind_of(part: str) -> str:
    return {"base": "base-changed", "engine": "engine-changed"}.get(part, "inputs-changed")


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days else f"{span.total_seconds() / 3600:.0f} hours"

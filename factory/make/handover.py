"""Publish the candidates that other jobs built and tested, each checked separately.

factory.records.artifacts decides which folders count as candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from factory.errors import BuildFailed, FactoryError, IntegrityFailure
from factory.make.adapters import Adapters
from factory.make.make import publish_together, require_ready
from factory.plan.plan import in_order
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records import catalog as catalogs
from factory.records import report as reports
from factory.records.artifacts import Artifact, artifacts_in
from factory.records.candidate import Candidate
from factory.records.inputs import GatherInputs, gather_once
from factory.records.job import Target
from factory.records.release import Release
from factory.records.report import OWN_TEST, TestReport

FindRecipe = Callable[[str], Recipe]


@dataclass(frozen=True)
class EntryResult:
    """Result for one entry of the folder: its release, or the error. name: the entry's file name."""

    name: str
    candidate: Candidate | None = None
    release: Release | None = None
    error: FactoryError | None = None


def publish_all(
    adapters: Adapters,
    find: FindRecipe,
    planned: Collection[Target] | None = None,
    gather_inputs: GatherInputs | None = None,
    *,
    first_attempt: bool = True,
) -> Iterator[EntryResult]:
    """Publish every candidate in the work folder, bases first, and yield each result.

    All architectures of a recipe get the same build number. A candidate that cannot be published does not stop the
    others, except those based on it. find: looks up a recipe by name. planned, first_attempt: as for
    ``artifacts_in``. gather_inputs: reads the inputs; by default each recipe is read once.

    Raises RegistryFailure or a subclass if the catalog cannot be read.
    """
    gather_inputs = gather_inputs or gather_once()
    found: list[tuple[Recipe, Candidate]] = []
    for entry in artifacts_in(adapters.candidates, planned, first_attempt=first_attempt):
        read = _of_recipe(entry, find)
        if isinstance(read, FactoryError):
            yield EntryResult(entry.name, error=read)
        elif read is not None:
            found.append(read)
        elif entry.target is None:
            adapters.progress.note(f"{entry.name} is ignored: it is no job of the plan, but left by an earlier attempt")
        else:
            where = adapters.candidates / entry.name
            adapters.progress.note(f"{entry.target[0]} ({entry.target[1]}) was not built; {where} contains no image")
    catalog = catalogs.read(adapters.registry)
    there = {name: {str(one.sif.digest) for one in entry.releases} for name, entry in catalog.entries.items()}
    for recipe in in_order([recipe for recipe, _ in found]):
        group = [made for one, made in found if one.name == recipe.name]
        for done in _publish(recipe, group, there.get(recipe.base_recipe, set()), adapters, gather_inputs):
            # An unchanged candidate counts as well: it has the same files as its release.
            if done.candidate is not None and done.release is not None:
                same = {str(done.candidate.sif.digest), str(done.release.sif.digest)}
                there[recipe.name] = there.get(recipe.name, set()) | same
            yield done


def _of_recipe(entry: Artifact, find: FindRecipe) -> tuple[Recipe, Candidate] | FactoryError | None:
    """Return the recipe and candidate of an entry, or why it is refused; None if nothing was built."""
    if entry.target is None:
        return entry.made if isinstance(entry.made, FactoryError) else None
    try:
        recipe = find(entry.target[0])
    except FactoryError as error:
        return error
    return (recipe, entry.made) if isinstance(entry.made, Candidate) else entry.made


def _publish(
    recipe: Recipe, group: Sequence[Candidate], bases: set[str], adapters: Adapters, gather_inputs: GatherInputs
) -> Iterator[EntryResult]:
    """Publish the candidates of one recipe. bases: the SIF digests of all releases of its base recipe."""
    ready = []
    for made in group:
        judged = _judged(recipe, made, bases, adapters, gather_inputs)
        if isinstance(judged, FactoryError):
            yield EntryResult(made.folder.name, made, error=judged)
        else:
            ready.append((made, judged))
    try:
        releases = publish_together(recipe, ready, adapters, gather_inputs) if ready else ()
    except FactoryError as error:
        yield from (EntryResult(made.folder.name, made, error=error) for made, _ in ready)
    else:
        for (made, _), release in zip(ready, releases):
            yield EntryResult(made.folder.name, made, release)


def _judged(
    recipe: Recipe, made: Candidate, bases: set[str], adapters: Adapters, gather_inputs: GatherInputs
) -> TestReport | FactoryError:
    """Return the report of a candidate that may be published, or the reason why not."""
    if recipe.base_recipe and made.base_digest not in bases:
        return BuildFailed(
            f"{recipe.name} ({made.arch}) is not published",
            why=f"it is based on an image of {recipe.base_recipe} that is not published: {made.base_digest}",
            fix=f"see why {recipe.base_recipe} was not published",
        )
    try:
        candidates.require_within(made, recipe.build.disk)
        report = reports.load(made.folder, recipe.name)
        _require_own_tests(recipe, report)
        require_ready(recipe, made, report, adapters, gather_inputs)
    except FactoryError as error:
        return error
    return report


def _require_own_tests(recipe: Recipe, report: TestReport) -> None:
    """Raise IntegrityFailure if a report has tests that the recipe does not: its text goes into the catalog."""
    named = [result.name for result in report.results]
    if len(set(named)) < len(named) or not set(named) <= {OWN_TEST, *(test.name for test in recipe.tests)}:
        raise IntegrityFailure(
            f"the test report of {recipe.name} contains tests that its recipe does not have",
            why="singfactory test did not write it",
            fix=f"singfactory test {recipe.name}",
        )

"""Publishing what other jobs built and tested: every candidate of a folder, each judged by itself.

Which of them count is decided in factory.records.artifacts.
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
class Handed:
    """What became of one entry of the folder: release, or the error that stopped it. name: the entry's own."""

    name: str
    candidate: Candidate | None = None
    release: Release | None = None
    error: FactoryError | None = None


def publish_all(
    adapters: Adapters,
    find: FindRecipe,
    planned: Collection[Target] | None = None,
    gather_inputs: GatherInputs | None = None,
) -> Iterator[Handed]:
    """Publish every candidate of the work folder, bases before what builds upon them, and tell of each as it is done.

    All architectures of a recipe get one number. One that cannot be published does not stop the others; what was built
    upon an image that is not published stays behind with it. find: the recipe of a name.
    planned: as for ``artifacts_in``. gather_inputs: reads the inputs, each recipe once if not given.

    Raises RegistryFailure and its kind when the catalog cannot be read.
    """
    gather_inputs = gather_inputs or gather_once()
    found: list[tuple[Recipe, Candidate]] = []
    for entry in artifacts_in(adapters.candidates, planned):
        read = _of_recipe(entry, find)
        if isinstance(read, FactoryError):
            yield Handed(entry.name, error=read)
        elif read is not None:
            found.append(read)
        elif entry.target is not None:
            where = adapters.candidates / entry.name
            adapters.progress.note(f"{entry.target[0]} ({entry.target[1]}) was not built; {where} holds no image")
    catalog = catalogs.read(adapters.registry)
    there = {name: {str(one.sif.digest) for one in entry.releases} for name, entry in catalog.entries.items()}
    for recipe in in_order([recipe for recipe, _ in found]):
        group = [made for one, made in found if one.name == recipe.name]
        for done in _publish(recipe, group, there.get(recipe.base_recipe, set()), adapters, gather_inputs):
            if (
                done.candidate is not None and done.release is not None
            ):  # of an unchanged one, too: the files are the same
                same = {str(done.candidate.sif.digest), str(done.release.sif.digest)}
                there[recipe.name] = there.get(recipe.name, set()) | same
            yield done


def _of_recipe(entry: Artifact, find: FindRecipe) -> tuple[Recipe, Candidate] | FactoryError | None:
    """The recipe and the candidate of an entry, or why it does not count; None where nothing was built."""
    if entry.target is None:
        return entry.made if isinstance(entry.made, FactoryError) else None
    try:
        recipe = find(entry.target[0])
    except FactoryError as error:
        return error
    return (recipe, entry.made) if isinstance(entry.made, Candidate) else entry.made


def _publish(
    recipe: Recipe, group: Sequence[Candidate], bases: set[str], adapters: Adapters, gather_inputs: GatherInputs
) -> Iterator[Handed]:
    """Publish the candidates of one recipe. bases: the SIF digests of all releases of what it builds upon."""
    ready = []
    for made in group:
        judged = _judged(recipe, made, bases, gather_inputs)
        if isinstance(judged, FactoryError):
            yield Handed(made.folder.name, made, error=judged)
        else:
            ready.append((made, judged))
    try:
        releases = publish_together(recipe, ready, adapters, gather_inputs) if ready else ()
    except FactoryError as error:
        yield from (Handed(made.folder.name, made, error=error) for made, _ in ready)
    else:
        for (made, _), release in zip(ready, releases, strict=True):
            yield Handed(made.folder.name, made, release)


def _judged(recipe: Recipe, made: Candidate, bases: set[str], gather_inputs: GatherInputs) -> TestReport | FactoryError:
    """The report of a candidate that may be published, or why it may not."""
    if recipe.base_recipe and made.base_digest not in bases:
        return BuildFailed(
            f"{recipe.name} ({made.arch}) is not published",
            why=f"it was built upon an image of {recipe.base_recipe} that is not published: {made.base_digest}",
            fix=f"see why {recipe.base_recipe} was not published",
        )
    try:
        candidates.require_within(made, recipe.build.disk)
        report = reports.load(made.folder, recipe.name)
        _require_own_tests(recipe, report)
        require_ready(recipe, made, report, gather_inputs)
    except FactoryError as error:
        return error
    return report


def _require_own_tests(recipe: Recipe, report: TestReport) -> None:
    """Raise IntegrityFailure for a report of tests that the recipe does not have: its words go into the catalog."""
    named = [result.name for result in report.results]
    if len(set(named)) < len(named) or not set(named) <= {OWN_TEST, *(test.name for test in recipe.tests)}:
        raise IntegrityFailure(
            f"the test report of {recipe.name} tells of tests that its recipe does not have",
            why="singfactory test did not write it",
            fix=f"singfactory test {recipe.name}",
        )

"""Publishing what other jobs built and tested: every candidate of a folder, each judged by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import candidate as candidates
from factory import catalog as catalogs
from factory import report as reports
from factory.candidate import Candidate
from factory.errors import BuildFailed, FactoryError, UsageError
from factory.io.progress import Progress
from factory.make import Works, publish_together, require_ready
from factory.names import recipe_name
from factory.plan import in_order
from factory.recipes.load import ARCHITECTURES
from factory.recipes.model import Recipe
from factory.release import Release
from factory.report import TestReport

FindRecipe = Callable[[str], Recipe]


@dataclass(frozen=True)
class Handed:
    """What became of one entry of the folder: release, or the error that stopped it. name: the entry's own."""

    name: str
    candidate: Candidate | None = None
    release: Release | None = None
    error: FactoryError | None = None


def publish_all(works: Works, find: FindRecipe) -> Iterator[Handed]:
    """Publish every candidate of the work folder, bases before what builds upon them, and tell of each as it is done.

    All architectures of a recipe get one number. One that cannot be published does not stop the others; what was built
    upon an image that is not published stays behind with it. find: the recipe of a name.

    Raises RegistryFailure and its kind when the catalog cannot be read.
    """
    found: list[tuple[Recipe, Candidate]] = []
    for path in _entries(works.candidates):
        read = _read(path, find, works.progress)
        if isinstance(read, FactoryError):
            yield Handed(path.name, error=read)
        elif read is not None:
            found.append(read)
    catalog = catalogs.read(works.registry)
    there = {name: {str(one.sif.digest) for one in entry.releases} for name, entry in catalog.entries.items()}
    for recipe in in_order([recipe for recipe, _ in found]):
        group = [made for one, made in found if one.name == recipe.name]
        for done in _publish(recipe, group, there.get(recipe.base_recipe, set()), works):
            if (
                done.candidate is not None and done.release is not None
            ):  # of an unchanged one, too: the files are the same
                same = {str(done.candidate.sif.digest), str(done.release.sif.digest)}
                there[recipe.name] = there.get(recipe.name, set()) | same
            yield done


def _entries(folder: Path) -> list[Path]:
    """What lies in the work folder, sorted; hidden entries are ours: locks, and files on their way."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(path: Path, find: FindRecipe, progress: Progress) -> tuple[Recipe, Candidate] | FactoryError | None:
    """The recipe and the candidate of a folder, or why there is none; None for what a failed build left."""
    name, _, arch = path.name.rpartition("-")
    fix = f"remove it from {path.parent}"
    if arch not in ARCHITECTURES or path.is_symlink() or not path.is_dir():
        return UsageError(f"{path.name!a} is no candidate", why="wanted a folder RECIPE-ARCHITECTURE", fix=fix)
    try:
        recipe_name(name)
    except UsageError as error:
        return UsageError(f"{path.name!a} is no candidate", why=str(error), fix=fix)
    try:
        recipe = find(name)
        if not (path / "candidate.json").exists() and not (path / "image.sif").exists():
            progress.note(f"{name} ({arch}) was not built; {path} holds no image")
            return None
        return recipe, candidates.load(path.parent, name, arch)
    except FactoryError as error:
        return error


def _publish(recipe: Recipe, group: Sequence[Candidate], bases: set[str], works: Works) -> Iterator[Handed]:
    """Publish the candidates of one recipe. bases: the SIF digests of all releases of what it builds upon."""
    ready = []
    for made in group:
        judged = _judged(recipe, made, bases)
        if isinstance(judged, FactoryError):
            yield Handed(made.folder.name, made, error=judged)
        else:
            ready.append((made, judged))
    try:
        releases = publish_together(recipe, ready, works) if ready else ()
    except FactoryError as error:
        yield from (Handed(made.folder.name, made, error=error) for made, _ in ready)
    else:
        for (made, _), release in zip(ready, releases, strict=True):
            yield Handed(made.folder.name, made, release)


def _judged(recipe: Recipe, made: Candidate, bases: set[str]) -> TestReport | FactoryError:
    """The report of a candidate that may be published, or why it may not."""
    if recipe.base_recipe and made.base_digest not in bases:
        return BuildFailed(
            f"{recipe.name} ({made.arch}) is not published",
            why=f"it was built upon an image of {recipe.base_recipe} that is not published: {made.base_digest}",
            fix=f"see why {recipe.base_recipe} was not published",
        )
    try:
        report = reports.load(made.folder, recipe.name)
        require_ready(recipe, made, report)
    except FactoryError as error:
        return error
    return report

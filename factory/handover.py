"""Publishing what other jobs built and tested: every candidate of a folder, each judged by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from factory import candidate as candidates
from factory import catalog as catalogs
from factory import report as reports
from factory.candidate import Candidate
from factory.errors import BuildFailed, FactoryError, UsageError
from factory.io.progress import Progress
from factory.make import Works, publish_one
from factory.names import recipe_name
from factory.plan import in_order
from factory.recipes.load import ARCHITECTURES
from factory.recipes.model import Recipe
from factory.release import Release

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

    One that cannot be published does not stop the others; what was built upon an image that is not published stays
    behind with it. find: the recipe of a name. Raises RegistryFailure and its kind when the catalog cannot be read.
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
    order = [recipe.name for recipe in in_order([recipe for recipe, _ in found])]
    for recipe, made in sorted(found, key=lambda one: (order.index(one[0].name), one[1].folder.name)):
        done = _publish(recipe, made, there.get(recipe.base_recipe, set()), works)
        if done.release is not None:
            there.setdefault(recipe.name, set()).add(str(done.release.sif.digest))
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


def _publish(recipe: Recipe, made: Candidate, bases: set[str], works: Works) -> Handed:
    """bases: the SIF digests of all releases of what the recipe builds upon."""
    name = made.folder.name
    try:
        if recipe.base_recipe and made.base_digest not in bases:
            raise BuildFailed(
                f"{recipe.name} ({made.arch}) is not published",
                why=f"it was built upon an image of {recipe.base_recipe} that is not published: {made.base_digest}",
                fix=f"see why {recipe.base_recipe} was not published",
            )
        release = publish_one(recipe, made, reports.load(made.folder, recipe.name), works)
    except FactoryError as error:
        return Handed(name, made, error=error)
    return Handed(name, made, release)

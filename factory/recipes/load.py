"""Load recipe folders: all of them, by name, or those that can be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from factory.errors import NotFound, RecipeError
from factory.oci.names import recipe_name
from factory.recipes.definition.templates import shown
from factory.recipes.document import FILE, read_leniently
from factory.recipes.model import (
    Place,
    Problem,
    ProblemError,
    Recipe,
    one_line,
)


@dataclass(frozen=True)
class Broken:
    """A recipe that cannot be built, and why. recipe: the readable parts, with defaults for the rest."""

    recipe: Recipe
    error: RecipeError


def load_recipe(folder: Path) -> Recipe:
    """Load one recipe folder. Raises RecipeError with the first problem and the number of others."""
    recipe, problems = check_recipe(folder)
    if recipe is None:
        raise _refusal(folder, problems)
    return recipe


def _refusal(folder: Path, problems: Sequence[Problem]) -> ProblemError:
    errors = [problem for problem in problems if not problem.warning]
    return ProblemError(errors[0], more=len(errors) - 1, see=f"singfactory lint {folder.name}")


def check_recipe(folder: Path) -> tuple[Recipe | None, tuple[Problem, ...]]:
    """Read `recipe.toml`. Return the recipe, None if it has an error, and every problem found."""
    recipe, problems = read_leniently(folder)
    return (None if any(not problem.warning for problem in problems) else recipe), problems


def recipe_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders in root, sorted by name, without hidden ones. Raises RecipeError if there is no root."""
    if not root.is_dir():
        raise RecipeError(
            f"there is no folder {root}",
            why="recipes belong in the folder recipes/ of a repository",
            fix="change to the repository's root, or create a recipe: singfactory new NAME --from IMAGE",
        )
    return tuple(sorted(item for item in root.iterdir() if item.is_dir() and not item.name.startswith(".")))


def load_all(root: Path) -> tuple[Recipe, ...]:
    """Load every recipe in the folder `recipes/`, sorted by name. Raises RecipeError for the first problem."""
    folders = recipe_folders(root)
    twins = twin_problems(folders)
    if twins:
        raise ProblemError(twins[0], more=len(twins) - 1, see="singfactory lint")
    return tuple(load_recipe(folder) for folder in folders)


def load_usable(root: Path) -> tuple[tuple[Recipe, ...], tuple[Broken, ...]]:
    """As load_all, but return broken recipes, and the recipes based on them, separately.

    Raises RecipeError if there is no such folder.
    """
    folders = recipe_folders(root)
    twins = {problem.place.path.parent: problem for problem in twin_problems(folders)}
    usable: dict[str, Recipe] = {}
    broken: dict[str, Broken] = {}
    for folder in folders:
        recipe, problems = read_leniently(folder)
        found = [*([twins[folder]] if folder in twins else []), *problems]
        if recipe is None or any(not problem.warning for problem in found):
            named = replace(recipe or Recipe(folder, folder.name, "0", ""), name=one_line(folder.name))
            broken[folder.name] = Broken(named, _refusal(folder, found))
        else:
            usable[recipe.name] = recipe
    broken |= {name: Broken(usable[name], error) for name, error in _circles(usable).items()}
    broken |= _based_on(usable, broken)
    left = tuple(recipe for name, recipe in usable.items() if name not in broken)
    return left, tuple(broken[name] for name in sorted(broken))


def _circles(recipes: Mapping[str, Recipe]) -> dict[str, RecipeError]:
    """Return the recipes that are based on themselves, directly or through others."""
    found = {}
    for name, recipe in recipes.items():
        path, here = [name], recipe.base_recipe
        while here in recipes and here not in path:
            path.append(here)
            here = recipes[here].base_recipe
        if here == name:
            circle = " -> ".join((*path, name))
            found[name] = RecipeError(
                f"the recipes' bases form a circle: {circle}", fix="change [build] base in one of them"
            )
    return found


def _based_on(recipes: Mapping[str, Recipe], broken: Mapping[str, Broken]) -> dict[str, Broken]:
    """Return the recipes based on broken ones, directly or through others. Withdrawn ones are never built."""
    found: dict[str, Broken] = {}
    causes = {name: one.error for name, one in broken.items()}
    while new := [
        recipe
        for name, recipe in recipes.items()
        if name not in causes and recipe.base_recipe in causes and recipe.lifecycle.status != "withdrawn"
    ]:
        for recipe in new:
            cause = causes[recipe.name] = causes[recipe.base_recipe]
            error = RecipeError(
                f"{recipe.name} is based on {recipe.base_recipe}, which is broken", why=cause.what, fix=cause.fix
            )
            found[recipe.name] = Broken(recipe, error)
    return found


def find(root: Path, names: Sequence[str]) -> tuple[Recipe, ...]:
    """Load the recipes with these names, in this order. Raises NotFound, which suggests similar names."""
    known = {folder.name: folder for folder in recipe_folders(root)}
    for name in names:
        if recipe_name(name) not in known:
            near = get_close_matches(name, known, n=3)
            raise NotFound(
                f"no recipe {name} in {root}",
                why=f"similar names: {', '.join(near)}" if near else "no recipe has a similar name",
                fix=f"list the recipes with ls {root}, or create one: singfactory new {name} --from IMAGE",
            )
    return tuple(load_recipe(known[name]) for name in names)


def twin_problems(folders: Sequence[Path]) -> tuple[Problem, ...]:
    """Return a problem for names that differ only in case or Unicode form: some file systems treat them as equal."""
    seen: dict[str, Path] = {}
    found = []
    for folder in folders:
        other = seen.setdefault(unicodedata.normalize("NFKC", folder.name).casefold(), folder)
        if other is not folder:
            message = f"two recipes have the same name {shown(folder.name)}: {other} and {folder}"
            found.append(Problem(Place(folder / FILE), message, "rename one of the two folders"))
    return tuple(found)

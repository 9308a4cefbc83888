"""The recipes of a repository, each loaded once however often a run asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factory.recipes import load
from factory.recipes.load import Broken
from factory.recipes.model import Recipe


class Recipes:
    """The recipes below the folder `recipes/`. Nothing is loaded before somebody asks for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[str, Recipe] = {}
        self._usable: tuple[tuple[Recipe, ...], tuple[Broken, ...]] | None = None

    def named(self, name: str) -> Recipe:
        """One recipe. Raises NotFound, which names the nearest ones, and RecipeError."""
        if name not in self._loaded:
            (self._loaded[name],) = load.find(self.root, [name])
        return self._loaded[name]

    def with_bases(self, names: Sequence[str]) -> tuple[Recipe, ...]:
        """The named recipes and those that they build upon, sorted by name. Raises NotFound, RecipeError."""
        found: dict[str, Recipe] = {}
        missing = list(names)
        while missing:
            name = missing.pop(0)
            if name and name not in found:
                found[name] = self.named(name)
                missing.append(found[name].base_recipe)
        return tuple(found[name] for name in sorted(found))

    def usable(self) -> tuple[tuple[Recipe, ...], tuple[Broken, ...]]:
        """All recipes, sorted by name, and those of which nothing can be made; see ``load_usable``."""
        if self._usable is None:
            self._usable = load.load_usable(self.root)
            self._loaded |= {recipe.name: recipe for recipe in self._usable[0]}
        return self._usable

    def select(self, names: Sequence[str]) -> tuple[tuple[Recipe, ...], tuple[Broken, ...]]:
        """The named recipes and what they build upon; without names all, and those of which nothing can be made.

        Raises NotFound, and RecipeError for a broken one that was named.
        """
        return (self.with_bases(names), ()) if names else self.usable()

"""The recipes of a repository. Each one is loaded at most once per run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factory.recipes import load
from factory.recipes.load import Broken
from factory.recipes.model import Recipe


class Recipes:
    """The recipes in the folder `recipes/`, loaded on demand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[str, Recipe] = {}
        self._usable: tuple[tuple[Recipe, ...], tuple[Broken, ...]] | None = None

    def named(self, name: str) -> Recipe:
        """Return one recipe. Raises NotFound, which suggests similar names, and RecipeError."""
        if name not in self._loaded:
            (self._loaded[name],) = load.find(self.root, [name])
        return self._loaded[name]

    def with_bases(self, names: Sequence[str]) -> tuple[Recipe, ...]:
        """Return the named recipes and their base recipes, sorted by name. Raises NotFound, RecipeError."""
        found: dict[str, Recipe] = {}
        missing = list(names)
        while missing:
            name = missing.pop(0)
            if name and name not in found:
                found[name] = self.named(name)
                missing.append(found[name].base_recipe)
        return tuple(found[name] for name in sorted(found))

    def usable(self) -> tuple[tuple[Recipe, ...], tuple[Broken, ...]]:
        """Return the recipes that can be built, sorted by name, and the broken ones; see ``load_usable``."""
        if self._usable is None:
            self._usable = load.load_usable(self.root)
            self._loaded |= {recipe.name: recipe for recipe in self._usable[0]}
        return self._usable

    def select(self, names: Sequence[str]) -> tuple[tuple[Recipe, ...], tuple[Broken, ...]]:
        """Return the named recipes with their base recipes, or, without names, everything that ``usable`` returns.

        Raises NotFound, and RecipeError if one of the named recipes is broken.
        """
        return (self.with_bases(names), ()) if names else self.usable()

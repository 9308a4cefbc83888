"""The input of a lint check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from factory.recipes.definition.copies import Copy
from factory.recipes.definition.definition import Definition, Section, Stage
from factory.recipes.model import Place, Problem, Recipe
from factory.recipes.toml.lines import KeyPath, nearest_line


@dataclass(frozen=True)
class Subject:
    """A recipe, its definition as written, and the definition with its arguments bound, once per architecture.

    others: recipes by name. lines: the lines of keys in `recipe.toml`. is_sound: the definition has no syntax errors.
    """

    recipe: Recipe
    definition: Definition
    bound: tuple[Definition, ...]
    others: Mapping[str, Recipe]
    lines: Mapping[KeyPath, int]
    is_sound: bool

    def stages(self) -> Iterator[Stage]:
        """Yield every stage of every bound definition."""
        for definition in self.bound:
            yield from definition.stages

    def copies(self) -> Iterator[tuple[Section, Copy]]:
        """Yield every entry of every `%files` section, with its section."""
        for stage in self.stages():
            for section in stage.named("files"):
                for copy in section.copies():
                    yield section, copy

    def error(self, line: int, message: str, remedy: str) -> Problem:
        """Return a problem in the definition that stops the build."""
        return Problem(Place(self.definition.path, line), message, remedy)

    def warning(self, line: int, message: str, remedy: str) -> Problem:
        """Return a problem in the definition that does not stop the build."""
        return Problem(Place(self.definition.path, line), message, remedy, warning=True)

    def about_recipe(self, key: KeyPath, message: str, remedy: str, *, warning: bool = True) -> Problem:
        """Return a problem of `recipe.toml`, at a key, or at its table if the key is missing."""
        place = Place(self.recipe.folder / "recipe.toml", nearest_line(self.lines, key))
        return Problem(place, message, remedy, warning)

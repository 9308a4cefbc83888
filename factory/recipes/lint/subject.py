"""What a lint check looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from factory.recipes.definition.copies import Copy
from factory.recipes.definition.definition import Definition, Section, Stage
from factory.recipes.model import Place, Problem, Recipe
from factory.recipes.toml.lines import KeyPath, nearest_line


@dataclass(frozen=True)
class Subject:
    """A recipe, its definition as written, and with its arguments bound, once per architecture.

    is_sound: nothing was wrong with the definition when it was read.
    """

    recipe: Recipe
    definition: Definition
    bound: tuple[Definition, ...]
    others: Mapping[str, Recipe]
    lines: Mapping[KeyPath, int]
    is_sound: bool

    def stages(self) -> Iterator[Stage]:
        """Every stage of every bound definition."""
        for definition in self.bound:
            yield from definition.stages

    def copies(self) -> Iterator[tuple[Section, Copy]]:
        """Every entry of every `%files` section, with its section."""
        for stage in self.stages():
            for section in stage.named("files"):
                for copy in section.copies():
                    yield section, copy

    def error(self, line: int, message: str, remedy: str) -> Problem:
        """A problem in the definition that stops the build."""
        return Problem(Place(self.definition.path, line), message, remedy)

    def warning(self, line: int, message: str, remedy: str) -> Problem:
        """A problem in the definition that does not stop the build."""
        return Problem(Place(self.definition.path, line), message, remedy, warning=True)

    def about_recipe(self, key: KeyPath, message: str, remedy: str, *, warning: bool = True) -> Problem:
        """A problem of `recipe.toml`, at a key or at the table where it is missing."""
        place = Place(self.recipe.folder / "recipe.toml", nearest_line(self.lines, key))
        return Problem(place, message, remedy, warning)

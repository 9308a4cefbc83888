"""Check that the user's own packages stay out of an image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from factory.recipes.definition.agents import AGENTS
from factory.recipes.definition.definition import Definition
from factory.recipes.definition.parser import scan_file
from factory.recipes.languages import LANGUAGES, Language, of_image
from factory.recipes.lint.shell import commands_of
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem, Recipe

_SET = re.compile(r"(?:^|[\s;&])([A-Za-z_][A-Za-z0-9_]*)=(\S*)")
_UNSET = re.compile(r"\bunset((?:[ \t]+[A-Za-z_-][A-Za-z0-9_]*)+)")
_SCRIPTS = ("post", "runscript", "test", "startscript")


def _user_packages(subject: Subject) -> Iterator[Problem]:
    layers = list(_layers(subject))
    known = {*subject.recipe.run.env}
    for _, definition in layers:
        known |= _variables(definition)
    for language in LANGUAGES:
        missing = [name for name in language.variables if name not in known]
        if missing and any(_has(recipe, definition, language) for recipe, definition in layers):
            message = (
                f"the image has {language.name}, but does not set {' and '.join(missing)}: "
                "on a cluster, the user's own packages come before the image's"
            )
            values = " ".join(f"{name}={language.variables[name]}" for name in missing)
            yield subject.warning(_line(subject.definition), message, f"write under %environment: export {values}")


def _layers(subject: Subject) -> Iterator[tuple[Recipe, Definition]]:
    """Yield the recipe and the recipes that it is based on, each with its definition."""
    recipe: Recipe | None = subject.recipe
    definition = subject.bound[0]
    seen: set[str] = set()
    while recipe is not None and recipe.name not in seen:
        yield recipe, definition
        seen.add(recipe.name)
        recipe = subject.others.get(recipe.base_recipe)
        if recipe is not None:
            definition, _ = scan_file(recipe.folder, recipe.build.definition)


def _variables(definition: Definition) -> set[str]:
    """Return the names that the image's `%environment` sets or unsets. A value with the host's in it does not count."""
    found: set[str] = set()
    for stage in definition.stages[-1:]:
        for section in stage.named("environment"):
            for _, text in section.lines():
                line = "" if text.lstrip().startswith("#") else text
                for name, value in _SET.findall(line):
                    if not re.search(rf"\$\{{?{name}\b", value):
                        found.add(name)
                found |= {name for names in _UNSET.findall(line) for name in names.split()}
    return found


def _has(recipe: Recipe, definition: Definition, language: Language) -> bool:
    if language in of_image(recipe.build.base):
        return True
    words = list(chain.from_iterable(test.run.split() for test in recipe.tests))
    for stage in definition.stages[-1:]:
        if stage.value("Bootstrap") in AGENTS and language in of_image(stage.value("From")):
            return True
        words += stage.value("Include").replace(",", " ").split()
        words += [word for name in _SCRIPTS for command in commands_of(stage, name) for word in command.words]
    return any(language.words.fullmatch(word.strip("\"'")) for word in words)


def _line(definition: Definition) -> int:
    """Return the line of the last stage's `%environment`, or of the stage."""
    stage = definition.stages[-1]
    sections = stage.named("environment")
    return sections[0].line if sections else stage.line


CHECKS = (_user_packages,)

"""Checks of `recipe.toml` beyond the types of its values."""

from __future__ import annotations

from collections.abc import Iterator

from factory.oci.names import LATEST, docker_base, is_docker_base
from factory.recipes import pins
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Place, Problem, ProblemError


def _description(subject: Subject) -> Iterator[Problem]:
    recipe = subject.recipe
    if not recipe.summary:
        yield subject.about_recipe(
            ("recipe", "summary"),
            "the recipe has no summary",
            'write summary = "…" under [recipe]; singfactory list and search show it',
        )
    if not recipe.license:
        yield subject.about_recipe(
            ("recipe", "license"), "the recipe has no license", 'write an SPDX identifier, as in license = "MIT"'
        )
    if not recipe.maintainers:
        yield subject.about_recipe(
            ("recipe", "maintainers"),
            "the recipe has no maintainers",
            'write maintainers = ["@name"], the people to ask when it breaks',
        )


def _tests(subject: Subject) -> Iterator[Problem]:
    recipe = subject.recipe
    last = subject.definition.stages[-1:]
    if not recipe.tests and not any(stage.named("test") for stage in last):
        yield subject.about_recipe((), "the recipe has no [[test]] and no %test", "add a [[test]] with name and run")
    if recipe.run.gpu != "none" and not any(test.gpu for test in recipe.tests):
        yield subject.about_recipe(
            ("run", "gpu"),
            f"the image is for {recipe.run.gpu} GPUs, but no test uses one",
            "add a [[test]] with gpu = true",
        )


def _base_recipe(subject: Subject) -> Iterator[Problem]:
    name = subject.recipe.base_recipe
    if not name:
        return
    if name not in subject.others and not (subject.recipe.folder.parent / name / "recipe.toml").is_file():
        yield subject.about_recipe(
            ("build", "base"),
            f"base is recipe://{name}, but there is no such recipe",
            f"correct the name, or create it: singfactory new {name} --from IMAGE",
            warning=False,
        )
    path = [subject.recipe.name]
    while name in subject.others and name not in path:
        path.append(name)
        name = subject.others[name].base_recipe
    # A circle further down is reported at the recipes that form it.
    if name == subject.recipe.name:
        yield subject.about_recipe(
            ("build", "base"),
            f"the recipes' bases form a circle: {' -> '.join([*path, name])}",
            "give one of them a docker:// base",
            warning=False,
        )


def _pin(subject: Subject) -> Iterator[Problem]:
    recipe = subject.recipe
    if not is_docker_base(recipe.build.base):
        return
    place = Place(recipe.folder / pins.FILE)
    remedy = f"run: singfactory update {recipe.name}"
    try:
        pinned = pins.read_pin(recipe) is not None
        stale = pins.is_stale(recipe)
    except ProblemError as error:
        yield error.problem
        return
    _, _, tag = docker_base(recipe.build.base)
    if stale:
        yield Problem(place, f"{pins.FILE} pins another base than {recipe.build.base}", remedy, warning=True)
    elif not pinned and ":" not in tag:
        moving = "is a moving tag and" if tag == LATEST else "is"
        yield subject.about_recipe(
            ("build", "base"), f"the base {recipe.build.base} {moving} not pinned to a digest", remedy
        )


CHECKS = (_description, _tests, _base_recipe, _pin)

"""Checks of `recipe.toml` beyond the types of its values."""

from __future__ import annotations

from collections.abc import Iterator

from factory.oci.names import LATEST, docker_base, docker_name
from factory.recipes.bases import Image, images_of
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Place, Problem, ProblemError
from factory.recipes.pins import FILE, read_pins


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


def _pins(subject: Subject) -> Iterator[Problem]:
    """Report images that no digest pins, and pins that are broken, incomplete, or of no use."""
    recipe = subject.recipe
    remedy = f"run: singfactory update {recipe.name}"
    try:
        images = images_of(recipe)
    except ProblemError:  # in the definition or the Dockerfile; their own checks report it
        return
    try:
        pins = read_pins(recipe)
    except ProblemError as error:
        yield error.problem
        return
    lock = recipe.folder / FILE
    for image in images:
        pin = pins.of(image.name)
        missing = [arch for arch in image.arch if arch not in pin.platforms] if pin and pin.platforms else []
        if missing:
            message = f"{FILE} has no digest of {image.name} for {', '.join(missing)}"
            yield Problem(Place(lock), message, remedy, warning=True)
        elif pin is None and not image.is_fixed:
            yield _unpinned(subject, image, remedy)
    used = {image.reference for image in images}
    for pin, line in zip(pins.pins, pins.lines):
        if docker_base(pin.base) not in used:
            message = f"{FILE} pins {pin.base}, which the recipe does not use"
            yield Problem(Place(lock, line), message, remedy, warning=True)


def _unpinned(subject: Subject, image: Image, remedy: str) -> Problem:
    moving = "is a moving tag and" if image.reference[2] == LATEST else "is"
    message = f"{image.name} {moving} not pinned to a digest"
    if image.name == subject.recipe.build.base:
        return subject.about_recipe(("build", "base"), f"the base {message}", remedy)
    return Problem(image.place, f"the image {docker_name(message)}", remedy, warning=True)


CHECKS = (_description, _tests, _base_recipe, _pins)

"""The `{{ name }}` that a definition can use: what the factory sets, and the recipe's own."""

from __future__ import annotations

from factory.names import docker_reference
from factory.recipes.model import BasePin, Recipe

BUILT_IN = frozenset({"base", "debian_mirror", "name", "version", "arch"})
DEBIAN_MIRROR = "http://mirror.example.org/debian"


def argument_values(recipe: Recipe, *, arch: str, base: str, debian_mirror: str = DEBIAN_MIRROR) -> dict[str, str]:
    """The values for a definition's arguments. base: what a `From:` takes; '' when the recipe has none."""
    values = {**recipe.build.args, "name": recipe.name, "version": recipe.version, "arch": arch}
    values["debian_mirror"] = debian_mirror
    if base:
        values["base"] = base
    return values


def base_address(recipe: Recipe, pin: BasePin | None) -> str:
    """What `{{ base }}` stands for: ``HOST/NAME@DIGEST`` with a pin, else ``HOST/NAME:TAG``; a recipe's name; ''.

    Tag and digest at once are never given: Apptainer refuses a docker reference with both.
    """
    if not recipe.build.base.startswith("docker://"):
        return recipe.base_recipe
    host, repository, tag = docker_reference(recipe.build.base.removeprefix("docker://"))
    if pin is not None:
        return f"{host}/{repository}@{pin.digest}"
    return f"{host}/{repository}{'@' if ':' in tag else ':'}{tag}"

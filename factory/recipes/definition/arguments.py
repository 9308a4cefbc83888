"""The `{{ name }}` that a definition can use: what the factory sets, and the recipe's own."""

from __future__ import annotations

from factory.oci.names import docker_base, is_docker_base
from factory.recipes.model import Recipe

BUILT_IN = frozenset({"base", "debian_mirror", "name", "version", "arch"})


MOVING = ("base", "debian_mirror")  # the arguments whose values only a build knows
ANY_MIRROR = "http://mirror.invalid/debian"  # stands for {{ debian_mirror }} where a recipe is looked at, not built


def argument_values(recipe: Recipe, *, arch: str, base: str, debian_mirror: str = "") -> dict[str, str]:
    """The values for a definition's arguments. base: what a `From:` takes; '' when the recipe has none."""
    values = {**recipe.build.args, "name": recipe.name, "version": recipe.version, "arch": arch}
    values["debian_mirror"] = debian_mirror
    if base:
        values["base"] = base
    return values


def values_by_arch(recipe: Recipe) -> tuple[dict[str, str], ...]:
    """The values for each architecture, for looking at a definition: with ANY_MIRROR, and the base as it is named."""
    base = base_address(recipe)
    return tuple(argument_values(recipe, arch=arch, base=base, debian_mirror=ANY_MIRROR) for arch in recipe.build.arch)


def base_address(recipe: Recipe, digest: str = "") -> str:
    """What `{{ base }}` stands for: ``HOST/NAME@DIGEST`` with a digest, else ``HOST/NAME:TAG``; a recipe's name; ''.

    Tag and digest at once are never given: Apptainer refuses a docker reference with both.
    """
    if not is_docker_base(recipe.build.base):
        return recipe.base_recipe
    host, repository, tag = docker_base(recipe.build.base)
    if digest:
        return f"{host}/{repository}@{digest}"
    return f"{host}/{repository}{'@' if ':' in tag else ':'}{tag}"

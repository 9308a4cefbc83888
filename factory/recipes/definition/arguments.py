"""The values of `{{ name }}` in a definition: those that the factory sets, and the recipe's own."""

from __future__ import annotations

from factory.oci.names import docker_base, is_docker_base
from factory.recipes.model import Recipe

BUILT_IN = frozenset({"base", "debian_mirror", "name", "version", "arch"})


MOVING = ("base", "debian_mirror")  # arguments whose values are known only during a build
ANY_MIRROR = "http://mirror.invalid/debian"  # placeholder for {{ debian_mirror }} when a recipe is checked, not built


def argument_values(recipe: Recipe, *, arch: str, base: str, debian_mirror: str = "") -> dict[str, str]:
    """Return the values of a definition's arguments. base: the value for `From:`, '' if the recipe has no base."""
    values = {**recipe.build.args, "name": recipe.name, "version": recipe.version, "arch": arch}
    values["debian_mirror"] = debian_mirror
    if base:
        values["base"] = base
    return values


def values_by_arch(recipe: Recipe) -> tuple[dict[str, str], ...]:
    """Return the values for each architecture, for checks: with ANY_MIRROR, and the base's name without a digest."""
    base = base_address(recipe)
    return tuple(argument_values(recipe, arch=arch, base=base, debian_mirror=ANY_MIRROR) for arch in recipe.build.arch)


def base_address(recipe: Recipe, digest: str = "") -> str:
    """Return the value of `{{ base }}`: ``HOST/NAME@DIGEST`` or ``HOST/NAME:TAG``, a recipe's name, or ''.

    It never has both a tag and a digest: Apptainer refuses such docker references.
    """
    if not is_docker_base(recipe.build.base):
        return recipe.base_recipe
    host, repository, tag = docker_base(recipe.build.base)
    if digest:
        return f"{host}/{repository}@{digest}"
    return f"{host}/{repository}{'@' if ':' in tag else ':'}{tag}"

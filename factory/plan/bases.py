"""Base images: look up the current digest of docker:// bases, and update the pins in base.lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from factory.errors import FactoryError, NotFound, NotVisible
from factory.io import threads
from factory.oci.names import docker_base, docker_name, is_docker_base
from factory.recipes.model import BasePin, Recipe
from factory.recipes.pins import read_pin, write_pin
from factory.registry.protocol import ImageReader

OpenHost = Callable[[str], ImageReader]
"""Opens the registry at a host name, without a namespace."""

_AT_ONCE = 8


@dataclass(frozen=True)
class Pinned:
    """The result of `update` for a recipe: the new pin, and the previous digest ('' for none)."""

    recipe: str
    pin: BasePin
    before: str


def look_up(recipes: Iterable[Recipe], open_host: OpenHost) -> dict[str, str | FactoryError]:
    """Return the digest of each recipe's docker:// base, by recipe: from its base.lock, else from the registry.

    Registries are asked in parallel. For a base that cannot be looked up, the value is the error.
    """
    found: dict[str, str | FactoryError] = {}
    unpinned: dict[str, str] = {}
    for recipe in recipes:
        if not is_docker_base(recipe.build.base):
            continue
        try:
            pin = read_pin(recipe)
        except FactoryError as error:
            found[recipe.name] = error
            continue
        if pin is not None:
            found[recipe.name] = pin.digest
        else:
            unpinned[recipe.name] = recipe.build.base
    wanted = sorted(set(unpinned.values()))
    answers = dict(zip(wanted, threads.mapped(lambda base: _ask(base, open_host), wanted, _AT_ONCE)))
    return found | {name: answers[base] for name, base in unpinned.items()}


def digest_now(base: str, open_host: OpenHost) -> str:
    """Return the current digest of a docker:// base in its registry. Raises NotFound, NotVisible, RegistryFailure."""
    host, repository, tag = docker_base(base)
    try:
        there = open_host(host).head(repository, tag)
    except NotVisible as error:
        what = f"the base image {docker_name(base)} does not exist, or it is private"
        raise NotVisible(what, why=error.why, fix=error.fix) from error
    if there is None:
        raise NotFound(
            f"the base image {docker_name(base)} does not exist",
            why=f"{host} has no {repository}:{tag}",
            fix="check build.base in recipe.toml",
        )
    return str(there.digest)


def pin_now(recipe: Recipe, open_host: OpenHost) -> Pinned | None:
    """Return the current pin, or None if the recipe has no docker:// base. Raises NotFound, RegistryFailure."""
    if not is_docker_base(recipe.build.base):
        return None
    before = read_pin(recipe)
    digest = digest_now(recipe.build.base, open_host)
    if before is not None and before.digest == digest:
        return Pinned(recipe.name, before, digest)
    pin = BasePin(recipe.build.base, digest, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return Pinned(recipe.name, pin, before.digest if before else "")


def update(recipe: Recipe, open_host: OpenHost) -> Pinned | None:
    """Write the base's current digest to base.lock. Return None if the recipe has no docker:// base."""
    done = pin_now(recipe, open_host)
    if done is not None and done.before != done.pin.digest:
        write_pin(recipe, done.pin)
    return done


def _ask(base: str, open_host: OpenHost) -> str | FactoryError:
    try:
        return digest_now(base, open_host)
    except FactoryError as error:
        name = docker_name(base)
        if name in error.what:
            return error
        return type(error)(f"the base image {name} could not be looked up", why=str(error), fix=error.fix)

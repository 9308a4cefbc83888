"""Base images: which digest each docker:// base has now, and moving the pins in base.lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone

from factory.errors import FactoryError, NotFound
from factory.oci.names import docker_base, docker_name, is_docker_base
from factory.recipes.model import BasePin, Recipe
from factory.recipes.pins import read_pin, write_pin
from factory.registry.protocol import Registry

OpenHost = Callable[[str], Registry]
"""Opens the registry of a host name, for anybody's images: no namespace of ours."""

_AT_ONCE = 8


@dataclass(frozen=True)
class Pinned:
    """What `update` did for a recipe: the new pin, and the digest before ('' when there was none)."""

    recipe: str
    pin: BasePin
    before: str


def look_up(recipes: Iterable[Recipe], open_host: OpenHost) -> dict[str, str | FactoryError]:
    """The digest of each recipe's docker:// base: pinned in its base.lock, else asked of the registry, several at once.

    By the recipe's name: each has a pin of its own. What cannot be had is in the answer as the error that says why.
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
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip(wanted, pool.map(lambda base: _ask(base, open_host), wanted), strict=True))
    return found | {name: answers[base] for name, base in unpinned.items()}


def digest_now(base: str, open_host: OpenHost) -> str:
    """The digest that a docker:// base has in its registry now. Raises NotFound, RegistryFailure."""
    host, repository, tag = docker_base(base)
    there = open_host(host).head(repository, tag)
    if there is None:
        raise NotFound(
            f"the base image {docker_name(base)} does not exist",
            why=f"{host} has no {repository}:{tag}",
            fix="check build.base in recipe.toml",
        )
    return str(there.digest)


def pin_now(recipe: Recipe, open_host: OpenHost) -> Pinned | None:
    """What base.lock should say now; None when the recipe has no docker:// base. Raises NotFound, RegistryFailure."""
    if not is_docker_base(recipe.build.base):
        return None
    before = read_pin(recipe)
    digest = digest_now(recipe.build.base, open_host)
    if before is not None and before.digest == digest:
        return Pinned(recipe.name, before, digest)
    pin = BasePin(recipe.build.base, digest, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return Pinned(recipe.name, pin, before.digest if before else "")


def update(recipe: Recipe, open_host: OpenHost) -> Pinned | None:
    """Write the digest that the base has now into base.lock; None when the recipe has no docker:// base."""
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

"""Base images: look up the current digests of a recipe's docker:// images, and update the pins in base.lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from factory.errors import AccessDenied, FactoryError, NotFound, NotVisible, RecipeError, RegistryFailure
from factory.io import threads
from factory.oci.names import docker_base, docker_name
from factory.recipes.bases import Image, images_of
from factory.recipes.document import ARCHITECTURES, lines_of
from factory.recipes.model import BasePin, Place, Recipe
from factory.recipes.pins import Pins, read_pins, write_pins
from factory.recipes.toml.lines import nearest_line
from factory.registry.images import platforms_of
from factory.registry.protocol import ImageReader

OpenHost = Callable[[str], ImageReader]
"""Opens the registry at a host name, without a namespace."""

_AT_ONCE = 8


@dataclass(frozen=True)
class Digests:
    """What is known of the images of several recipes.

    bases: by recipe, the digest of its docker:// base, or the error of a lookup. images: by recipe, the digests of its
    other images by name.
    """

    bases: Mapping[str, str | FactoryError] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pinned:
    """The result of `update` for one image of a recipe: the new pin, and the previous digest ('' for none)."""

    recipe: str
    pin: BasePin
    before: str

    @property
    def moved(self) -> bool:
        """Whether the digest is new."""
        return self.before != self.pin.digest


def look_up(recipes: Iterable[Recipe], open_host: OpenHost) -> Digests:
    """Return the digests of the recipes' docker:// images: from base.lock, else from the registry.

    Registries are asked in parallel. If one image of a recipe cannot be looked up, its base is the error.
    """
    recipes = tuple(recipes)
    wanted: dict[str, dict[Image, str]] = {}
    bases: dict[str, str | FactoryError] = {}
    for recipe in recipes:
        found = _pinned(recipe)
        if isinstance(found, FactoryError):
            bases[recipe.name] = found
        else:
            wanted[recipe.name] = found
    unpinned = sorted({image.name for found in wanted.values() for image, digest in found.items() if not digest})
    answers = dict(zip(unpinned, threads.mapped(lambda name: _ask(name, open_host), unpinned, _AT_ONCE)))
    images: dict[str, dict[str, str]] = {}
    for recipe in recipes:
        known: dict[str, str] = {}
        for image, digest in wanted.get(recipe.name, {}).items():
            answer = digest or answers[image.name]
            if isinstance(answer, FactoryError):
                bases.setdefault(recipe.name, _placed(answer, image, recipe))
            else:
                known[image.name] = answer
        if recipe.name in wanted and recipe.name not in bases:
            own = known.pop(recipe.build.base, None)
            bases |= {recipe.name: own} if own is not None else {}
            images |= {recipe.name: known} if known else {}
    return Digests(bases, images)


def _pinned(recipe: Recipe) -> dict[Image, str] | FactoryError:
    """Return the recipe's images with the digests in base.lock, '' for none; or what is wrong with a file."""
    try:
        pins = read_pins(recipe)
        found = {image: pins.of(image.name) for image in _pinnable(recipe)}
    except FactoryError as error:
        return error
    return {image: pin.digest if pin else "" for image, pin in found.items()}


def digest_now(base: str, open_host: OpenHost) -> str:
    """Return the current digest of a docker:// image in its registry. Raises NotFound, NotVisible, RegistryFailure."""
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


def pins_now(recipe: Recipe, open_host: OpenHost) -> tuple[Pinned, ...]:
    """Return the current pin of each docker:// image of a recipe; none if it has no such image.

    A digest that moved only for architectures that the recipe is not built for stays. Raises NotFound, RegistryFailure,
    RecipeError.
    """
    before = read_pins(recipe)
    return tuple(_pin_now(recipe, image, before, open_host) for image in _pinnable(recipe))


def update(recipe: Recipe, open_host: OpenHost) -> tuple[Pinned, ...]:
    """Write the current digests of the recipe's images to base.lock. Raises as ``pins_now``."""
    done = pins_now(recipe, open_host)
    pins = tuple(one.pin for one in done)
    if pins != read_pins(recipe).pins:
        write_pins(recipe, pins)
    return done


def _pinnable(recipe: Recipe) -> tuple[Image, ...]:
    """Return the images to pin. The base is pinned also if it is a digest, because base.lock then says for what."""
    own = recipe.build.base
    return tuple(image for image in images_of(recipe) if image.name == own or not image.is_fixed)


def _pin_now(recipe: Recipe, image: Image, pins: Pins, open_host: OpenHost) -> Pinned:
    before = pins.of(image.name)
    try:
        digest = digest_now(image.name, open_host)
    except FactoryError as error:
        raise _placed(error, image, recipe) from error
    if before is not None and before.digest == digest and before.platforms:
        _require_platforms(image, before.platforms)
        return Pinned(recipe.name, before, digest)
    host, repository, _ = image.reference
    registry = open_host(host)
    found = platforms_of(registry.manifest(repository, digest), repository, registry)
    _require_platforms(image, found)
    if before is not None and before.platforms and _same(before.platforms, found, image.arch):
        return Pinned(recipe.name, before, before.digest)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    resolved = before.resolved if before is not None and before.digest == digest else now
    pin = BasePin(image.name, digest, resolved, {arch: found[arch] for arch in ARCHITECTURES if arch in found})
    return Pinned(recipe.name, pin, before.digest if before else "")


def _same(before: Mapping[str, str], now: Mapping[str, str], wanted: Collection[str]) -> bool:
    return all(arch in before and before[arch] == now.get(arch) for arch in wanted)


def _require_platforms(image: Image, found: Mapping[str, str]) -> None:
    """Raise RecipeError for an image that does not exist for an architecture of the recipe. {}: it is not known."""
    missing = [arch for arch in image.arch if arch not in found] if found else []
    if missing:
        raise RecipeError(
            f"{image.place}: the base image {docker_name(image.name)} does not exist for {', '.join(missing)}",
            why=f"it is available for: {', '.join(sorted(found))}",
            fix="choose another image or tag, or change arch under [build] in recipe.toml",
        )


def _ask(base: str, open_host: OpenHost) -> str | FactoryError:
    try:
        return digest_now(base, open_host)
    except FactoryError as error:
        return error


def _placed(error: FactoryError, image: Image, recipe: Recipe) -> FactoryError:
    """Return the error of a lookup with the place that names the image, and the ways to reach it."""
    place, name = image.place, docker_name(image.name)
    if not place.line:
        place = Place(place.path, nearest_line(lines_of(recipe.folder), ("build", "base")))
    fix = error.fix
    if isinstance(error, NotFound):
        fix = f"correct the name, or the tag, in {place.path.name}"
    elif isinstance(error, RegistryFailure) and not isinstance(error, AccessDenied) and "[mirrors]" not in fix:
        fix = f'check the network, or name a mirror: "{image.reference[0]}" under [mirrors] in factory.toml'
    if name in error.what:
        return type(error)(f"{place}: {error.what}", why=error.why, fix=fix)
    return type(error)(f"{place}: the base image {name} could not be looked up", why=str(error), fix=fix)

"""The images in Docker registries that a recipe is built from: of each stage of its definition or Dockerfile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from factory.errors import UsageError
from factory.oci.names import docker_base, docker_name, docker_reference, is_docker_base
from factory.recipes.definition import parser as definition_parser
from factory.recipes.definition.arguments import base_address, values_by_arch
from factory.recipes.dockerfile import bases as dockerfile_bases
from factory.recipes.dockerfile import parser as dockerfile_parser
from factory.recipes.document import FILE
from factory.recipes.model import Place, Recipe


@dataclass(frozen=True)
class Image:
    """An image that a build fetches. name: ``docker://…`` as the recipe writes it. place: where. arch: for which.

    The place of the recipe's base has no line: finding it takes longer than everything else here.
    """

    name: str
    place: Place
    arch: tuple[str, ...]

    @property
    def reference(self) -> tuple[str, str, str]:
        """Host, repository and tag or digest: equal for two spellings of one image."""
        return docker_base(self.name)

    @property
    def is_fixed(self) -> bool:
        """Whether the name is a digest already."""
        return ":" in self.reference[2]


def images_of(recipe: Recipe) -> tuple[Image, ...]:
    """Return the images, each once, the recipe's base first.

    Raises ProblemError, with file and line, if the definition or the Dockerfile is broken.
    """
    found: dict[tuple[str, str, str], Image] = {}
    for image in _uses(recipe):
        known = found.get(image.reference)
        arch = tuple(sorted({*image.arch, *(known.arch if known else ())}))
        found[image.reference] = replace(known or image, arch=arch)
    return tuple(found.values())


def others(recipe: Recipe) -> tuple[Image, ...]:
    """Return the images besides the recipe's base whose names are tags. Raises ProblemError."""
    base = docker_base(recipe.build.base) if is_docker_base(recipe.build.base) else None
    return tuple(image for image in images_of(recipe) if image.reference != base and not image.is_fixed)


def _uses(recipe: Recipe) -> Iterator[Image]:
    if is_docker_base(recipe.build.base):
        yield Image(recipe.build.base, Place(recipe.folder / FILE), recipe.build.arch)
    yield from _of_dockerfile(recipe) if recipe.build.dockerfile else _of_definition(recipe)


def _of_definition(recipe: Recipe) -> Iterator[Image]:
    written, own = definition_parser.read(recipe.folder, recipe.build.definition), base_address(recipe)
    for arch, values in zip(recipe.build.arch, values_by_arch(recipe)):
        for stage in written.bind(values).stages:
            header, agent = stage.header("From"), stage.value("Bootstrap").lower()
            if header is None or agent != "docker" or header.value == own or not _is_name(header.value):
                continue
            if stage.header("Registry") or stage.header("Namespace"):  # refused by lint, and by builds
                continue
            yield Image(f"docker://{docker_name(header.value)}", Place(written.path, header.line), (arch,))


def _of_dockerfile(recipe: Recipe) -> Iterator[Image]:
    dockerfile = dockerfile_parser.read(recipe.folder, recipe.build.dockerfile)
    for arch in recipe.build.arch:
        for image in dockerfile_bases.images(dockerfile, recipe.build.args, recipe.build.target, arch):
            yield Image(f"docker://{image.image}", dockerfile.at(image.line), (image.arch,))


def _is_name(text: str) -> bool:
    """Return whether the text names an image. Lint reports what does not."""
    try:
        docker_reference(text)
    except UsageError:
        return False
    return True

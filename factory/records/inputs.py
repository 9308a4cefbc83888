"""The inputs of an image, combined into one digest, the input key. The same key is not built twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from factory.oci.digest import Digest
from factory.oci.names import docker_base, docker_reference
from factory.recipes.bases import others
from factory.recipes.content import build_inputs, files_of_tests, refuse_moving
from factory.recipes.definition import parser as definition_parser
from factory.recipes.definition.agents import refuse_host
from factory.recipes.definition.arguments import argument_values, base_address
from factory.recipes.definition.definition import Definition
from factory.recipes.dockerfile import build as dockerfile_build
from factory.recipes.model import Recipe
from factory.recipes.quiet import quiet
from factory.records.release import run_to_json

_IMAGE = "image "  # begins the names of the parts for images besides the base
BASE_FILE = "base.sif"  # the file name of a recipe:// base's image during a build


def is_base(part: str) -> bool:
    """Return whether a part of the inputs is a base image: the recipe's own, or that of another stage."""
    return part == "base" or part.startswith(_IMAGE)


@dataclass(frozen=True)
class Inputs:
    """The inputs of an image: a digest or short text per named part."""

    parts: Mapping[str, str]

    @property
    def key(self) -> Digest:
        """The input key: one digest over all parts."""
        return Digest.of(json.dumps(dict(self.parts), sort_keys=True).encode())

    @property
    def base_digest(self) -> str:
        """The digest of the base image; '' if there is none."""
        return self.parts.get("base", "")

    @property
    def images(self) -> dict[str, str]:
        """The digests of the docker:// images besides the base, by name."""
        return {name[len(_IMAGE) :]: text for name, text in self.parts.items() if name.startswith(_IMAGE)}

    def recorded_in(self, before: Mapping[str, str]) -> Inputs:
        """Return the inputs without the images that earlier parts do not mention.

        An image that was built before such images counted must not be rebuilt only because they do now.
        """
        kept = {name: text for name, text in self.parts.items() if not name.startswith(_IMAGE) or name in before}
        return Inputs(kept)

    def with_images(self, images: Mapping[str, str]) -> Inputs:
        """Return the same inputs with the digests of other images."""
        kept = {name: text for name, text in self.parts.items() if not name.startswith(_IMAGE)}
        return Inputs(kept | {_IMAGE + name: digest for name, digest in images.items()})

    def with_base(self, base_digest: str) -> Inputs:
        """Return the same inputs with another base."""
        return Inputs({**self.parts, "base": base_digest})

    def with_engine(self, engine: str) -> Inputs:
        """Return the same inputs for another engine."""
        return Inputs({**self.parts, "engine": engine})

    def changed(self, before: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the parts that differ from earlier ones."""
        return tuple(sorted(name for name in {*self.parts, *before} if self.parts.get(name) != before.get(name)))


def gather(recipe: Recipe, arch: str, base_digest: str, engine: str, images: Mapping[str, str] | None = None) -> Inputs:
    """Read and hash the inputs of an image. Raises RecipeError.

    base_digest: '' without a base. images: the digests of the docker:// images besides the base, by name; a name that
    the recipe does not have is left out.
    """
    parts = dockerfile_build.inputs(recipe, arch) if recipe.build.dockerfile else _definition_inputs(recipe, arch)
    inputs = Inputs(
        {
            "recipe": f"{recipe.name} {recipe.version} {arch}",
            **parts,
            "base": base_digest,
            "run": Digest.of(json.dumps(run_to_json(recipe.run), sort_keys=True).encode()).hex,
            "engine": engine,
        }
    )
    names = {image.name for image in others(recipe)} if images else set()
    return inputs.with_images({name: digest for name, digest in (images or {}).items() if name in names})


def _definition_inputs(recipe: Recipe, arch: str) -> dict[str, str]:
    # The base's digest and the rules are separate parts, so that a moved base is not reported as an edited definition.
    # The mirror is left out: it changes where packages come from, not which ones.
    definition = definition_for(replace(recipe, quiet=quiet.NO_RULES), arch, base_digest="", debian_mirror="")
    copied = json.dumps(build_inputs(recipe, definition))
    return {
        "definition": Digest.of(definition.text().encode()).hex,
        "files": Digest.of(copied.encode()).hex,
        "rules": quiet.record(recipe.quiet),
    }


def tests_of(recipe: Recipe) -> Digest:
    """Return the digest of a recipe's tests: each `[[test]]`, the files in `tests`, and `[run]`, which they run with.

    The image does not depend on them, so they are not part of its inputs. Raises ProblemError for a file that cannot
    be read, or a link out of the recipe's folder.
    """
    specs = [{**asdict(test), "timeout": test.timeout.total_seconds()} for test in recipe.tests]
    document = {"tests": specs, "files": files_of_tests(recipe), "run": run_to_json(recipe.run)}
    return Digest.of(json.dumps(document, sort_keys=True).encode())


class GatherInputs(Protocol):
    """Reads the inputs of an image, as ``gather`` does."""

    def __call__(
        self, recipe: Recipe, arch: str, base_digest: str, engine: str, images: Mapping[str, str] | None = None
    ) -> Inputs:
        """Return the inputs. Raises RecipeError."""


def gather_once() -> GatherInputs:
    """Return a `gather` that reads each recipe once per architecture, for all steps of one run."""
    read: dict[tuple[str, str, frozenset[tuple[str, str]]], Inputs] = {}

    def gather_inputs(
        recipe: Recipe, arch: str, base_digest: str, engine: str, images: Mapping[str, str] | None = None
    ) -> Inputs:
        target = (recipe.name, arch, frozenset((images or {}).items()))
        if target not in read:
            read[target] = gather(recipe, arch, base_digest, engine, images)
        return read[target].with_base(base_digest).with_engine(engine)

    return gather_inputs


def definition_for(
    recipe: Recipe,
    arch: str,
    base_digest: str,
    debian_mirror: str,
    *,
    epoch: int = 0,
    images: Mapping[str, str] | None = None,
) -> Definition:
    """Return the recipe's definition with its arguments filled in and the factory's rules applied.

    The rules create the mount points of `[run] binds` and make builds quiet. epoch: the build's time, in seconds since
    1970. images: the digests that replace the tags of docker:// images besides the base. Raises RecipeError. The checks
    apply to exactly what the engine gets: its text parses as this definition, and nothing in it touches the build host.
    """
    base = base_address(recipe, base_digest)
    values = argument_values(recipe, arch=arch, base=base, debian_mirror=debian_mirror)
    written = _read(recipe)
    definition = definition_parser.bind(written, values)
    refuse_moving(written, values)
    refuse_host(definition, debian_mirror)
    for index, stage in enumerate(definition.stages):
        if stage.value("Bootstrap").lower() == "recipe":
            definition = definition.with_headers(index, {"Bootstrap": "localimage", "From": BASE_FILE})
        elif images and stage.value("Bootstrap").lower() == "docker":
            definition = definition.with_headers(index, {"From": pinned_name(stage.value("From"), images)})
    definition = quiet.labelled(
        definition, {f"io.singfactory.project.{n}": t for n, t in recipe.project.facts().items()}
    )
    first = quiet.mount_points(recipe.run.binds)
    return definition_parser.require_same(quiet.with_rules(definition, recipe.quiet, epoch, first))


def pinned_name(image: str, digests: Mapping[str, str]) -> str:
    """Return the name of a Docker image with the digest that its tag stands for; unchanged if there is none.

    digests: by ``docker://`` name.
    """
    host, repository, tag = docker_reference(image)
    for name, digest in digests.items():
        if docker_base(name) == (host, repository, tag):
            return f"{host}/{repository}@{digest}"
    return image


def needs_mirror(recipe: Recipe) -> bool:
    """Return whether the definition uses `{{ debian_mirror }}`."""
    return not recipe.build.dockerfile and any(use.name == "debian_mirror" for use in _read(recipe).variables())


def _read(recipe: Recipe) -> Definition:
    return definition_parser.read(recipe.folder, recipe.build.definition)

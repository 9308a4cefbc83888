"""The inputs of an image, combined into one digest, the input key. The same key is not built twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from factory.oci.digest import Digest
from factory.recipes.content import build_inputs, refuse_moving
from factory.recipes.definition import parser as definition_parser
from factory.recipes.definition.agents import refuse_host
from factory.recipes.definition.arguments import argument_values, base_address
from factory.recipes.definition.definition import Definition
from factory.recipes.dockerfile import build as dockerfile_build
from factory.recipes.model import Recipe
from factory.recipes.quiet import quiet
from factory.records.release import run_to_json

BASE_FILE = "base.sif"  # the file name of a recipe:// base's image during a build


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

    def with_base(self, base_digest: str) -> Inputs:
        """Return the same inputs with another base."""
        return Inputs({**self.parts, "base": base_digest})

    def with_engine(self, engine: str) -> Inputs:
        """Return the same inputs for another engine."""
        return Inputs({**self.parts, "engine": engine})

    def changed(self, before: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the parts that differ from earlier ones."""
        return tuple(sorted(name for name in {*self.parts, *before} if self.parts.get(name) != before.get(name)))


def gather(recipe: Recipe, arch: str, base_digest: str, engine: str) -> Inputs:
    """Read and hash the inputs of an image. base_digest: '' without a base. Raises RecipeError."""
    parts = dockerfile_build.inputs(recipe, arch) if recipe.build.dockerfile else _definition_inputs(recipe, arch)
    return Inputs(
        {
            "recipe": f"{recipe.name} {recipe.version} {arch}",
            **parts,
            "base": base_digest,
            "run": Digest.of(json.dumps(run_to_json(recipe.run), sort_keys=True).encode()).hex,
            "engine": engine,
        }
    )


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


GatherInputs = Callable[[Recipe, str, str, str], Inputs]  # recipe, architecture, base's digest, engine: see `gather`


def gather_once() -> GatherInputs:
    """Return a `gather` that reads each recipe once per architecture, for all steps of one run."""
    read: dict[tuple[str, str], Inputs] = {}

    def gather_inputs(recipe: Recipe, arch: str, base_digest: str, engine: str) -> Inputs:
        target = (recipe.name, arch)
        if target not in read:
            read[target] = gather(recipe, arch, base_digest, engine)
        return read[target].with_base(base_digest).with_engine(engine)

    return gather_inputs


def definition_for(recipe: Recipe, arch: str, base_digest: str, debian_mirror: str, epoch: int = 0) -> Definition:
    """Return the recipe's definition with its arguments filled in and the factory's rules applied.

    The rules create the mount points of `[run] binds` and make builds quiet. epoch: the build's time, in seconds since
    1970. Raises RecipeError. The checks apply to exactly what the engine gets: its text parses as this definition, and
    nothing in it touches the build host.
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
    definition = quiet.labelled(
        definition, {f"io.singfactory.project.{n}": t for n, t in recipe.project.facts().items()}
    )
    first = quiet.mount_points(recipe.run.binds)
    return definition_parser.require_same(quiet.with_rules(definition, recipe.quiet, epoch, first))


def needs_mirror(recipe: Recipe) -> bool:
    """Return whether the definition uses `{{ debian_mirror }}`."""
    return not recipe.build.dockerfile and any(use.name == "debian_mirror" for use in _read(recipe).variables())


def _read(recipe: Recipe) -> Definition:
    return definition_parser.read(recipe.folder, recipe.build.definition)

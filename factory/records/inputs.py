"""All that goes into an image, as one digest: what has the same input key is not built again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from factory.oci.digest import Digest
from factory.recipes.content import build_inputs, refuse_moving
from factory.recipes.definition import parser as definition_parser
from factory.recipes.definition.agents import refuse_host
from factory.recipes.definition.arguments import argument_values, base_address
from factory.recipes.definition.definition import Definition
from factory.recipes.model import Recipe
from factory.recipes.quiet import quiet
from factory.records.release import run_to_json

BASE_FILE = "base.sif"  # the name under which a build sees the image of a recipe:// base


@dataclass(frozen=True)
class Inputs:
    """The parts, each as a digest or short text under its name, and the key over them all."""

    parts: Mapping[str, str]

    @property
    def key(self) -> Digest:
        """One digest over all parts."""
        return Digest.of(json.dumps(dict(self.parts), sort_keys=True).encode())

    @property
    def base_digest(self) -> str:
        """The digest of what is built upon; '' for nothing."""
        return self.parts.get("base", "")

    def upon(self, base_digest: str) -> Inputs:
        """The same inputs upon another base."""
        return Inputs({**self.parts, "base": base_digest})

    def with_engine(self, engine: str) -> Inputs:
        """The same inputs for another engine."""
        return Inputs({**self.parts, "engine": engine})

    def changed(self, before: Mapping[str, str]) -> tuple[str, ...]:
        """The names of the parts that differ from earlier ones."""
        return tuple(sorted(name for name in {*self.parts, *before} if self.parts.get(name) != before.get(name)))


def gather(recipe: Recipe, arch: str, base_digest: str, engine: str) -> Inputs:
    """Read and hash what goes into an image. base_digest: '' without a base. Raises RecipeError."""
    # The base's digest is a part of its own, so that a moved base can be told from an edited definition; so are the
    # rules. The mirror says where packages come from, not which: the same image, whichever is near.
    definition = definition_for(replace(recipe, quiet=quiet.NO_RULES), arch, base_digest="", debian_mirror="")
    copied = json.dumps(build_inputs(recipe, definition))
    return Inputs(
        {
            "recipe": f"{recipe.name} {recipe.version} {arch}",
            "definition": Digest.of(definition.text().encode()).hex,
            "files": Digest.of(copied.encode()).hex,
            "base": base_digest,
            "run": Digest.of(json.dumps(run_to_json(recipe.run), sort_keys=True).encode()).hex,
            "engine": engine,
            "rules": quiet.record(recipe.quiet),
        }
    )


GatherInputs = Callable[[Recipe, str, str, str], Inputs]  # recipe, architecture, base's digest, engine: see `gather`


def gather_once() -> GatherInputs:
    """Return a `gather` that reads each recipe once per architecture, for all steps of one run."""
    read: dict[tuple[str, str], Inputs] = {}

    def gather_inputs(recipe: Recipe, arch: str, base_digest: str, engine: str) -> Inputs:
        target = (recipe.name, arch)
        if target not in read:
            read[target] = gather(recipe, arch, base_digest, engine)
        return read[target].upon(base_digest).with_engine(engine)

    return gather_inputs


def definition_for(recipe: Recipe, arch: str, base_digest: str, debian_mirror: str, epoch: int = 0) -> Definition:
    """The recipe's definition with its arguments filled in and the factory's own rules applied.

    Rules: the mount points that `[run] binds` promises exist in the image, and those of quiet builds. epoch: the
    time that stands for now, in seconds since 1970. Raises RecipeError. What is checked here is what the engine is
    handed: its text reads back as this definition, and nothing of it reaches the build host.
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
    first = ["mkdir -p -- " + shlex.join(recipe.run.binds) + " || exit"] if recipe.run.binds else []
    return definition_parser.require_same(quiet.with_rules(definition, recipe.quiet, epoch, first))


def needs_mirror(recipe: Recipe) -> bool:
    """Whether the definition asks for `{{ debian_mirror }}`."""
    return any(use.name == "debian_mirror" for use in _read(recipe).variables())


def _read(recipe: Recipe) -> Definition:
    return definition_parser.read(recipe.folder, recipe.build.definition)

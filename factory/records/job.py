"""A job: one recipe for one architecture that must be built, with all that its build needs to know."""

from __future__ import annotations

from dataclasses import dataclass, replace

from factory.errors import FactoryError
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate
from factory.records.inputs import Inputs
from factory.records.release import Release

Target = tuple[str, str]
"""A recipe's name, and an architecture."""


@dataclass(frozen=True)
class Base:
    """What a job builds upon. digest: of a pinned image, or of another recipe's SIF; '' for a recipe without a base.

    image: the image of a recipe:// base, built here or published; None for other bases.
    """

    digest: str = ""
    image: Candidate | Release | None = None


@dataclass(frozen=True)
class Job:
    """One build: of what, from what, upon what, and why.

    inputs: read when the job was planned; a recipe that has changed since is refused after the build and at publish.
    waits_for: the recipe whose image must be built first. Until it is, base is None and inputs say nothing of it.
    """

    recipe: Recipe
    arch: str
    reasons: tuple[str, ...]
    inputs: Inputs
    base: Base | None = None
    waits_for: str = ""
    wave: int = 0

    @property
    def title(self) -> str:
        """For people: ``pytorch-2.1 (amd64)``."""
        return f"{self.recipe.name} ({self.arch})"

    @property
    def target(self) -> Target:
        """What it builds."""
        return self.recipe.name, self.arch

    def upon(self, base: Base) -> Job:
        """The same job upon a base that is known by now; its files are not read again."""
        return replace(self, base=base, inputs=self.inputs.upon(base.digest))


@dataclass(frozen=True)
class Kept:
    """One recipe for one architecture that is published as it should be; release is None when withdrawn."""

    recipe: Recipe
    arch: str
    release: Release | None
    why: str


@dataclass(frozen=True)
class Stuck:
    """One recipe for one architecture that cannot be planned, and why."""

    recipe: Recipe
    arch: str
    error: FactoryError


@dataclass(frozen=True)
class Plan:
    """jobs are in an order that respects recipe:// bases; wave n needs only images of waves before it."""

    jobs: tuple[Job, ...] = ()
    kept: tuple[Kept, ...] = ()
    stuck: tuple[Stuck, ...] = ()

"""A job: one recipe to build for one architecture, with everything the build needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from factory.errors import FactoryError
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate
from factory.records.inputs import Inputs
from factory.records.release import Release

Target = tuple[str, str]
"""A recipe's name, and an architecture."""


@dataclass(frozen=True)
class Base:
    """A job's base image. digest: of a pinned image or of another recipe's SIF; '' for a recipe without a base.

    image: the image of a recipe:// base, built here or published; None for other bases. others: the digests of the
    recipe's other docker:// images, by name.
    """

    digest: str = ""
    image: Candidate | Release | None = None
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One build: the recipe, its inputs, its base and the reasons.

    inputs: read when the job was planned; a recipe that changed since is refused after the build and by publish.
    waits_for: the recipe whose image must be built first. Until then base is None, and inputs do not include it.
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
        """The display name: ``pytorch-2.1 (amd64)``."""
        return f"{self.recipe.name} ({self.arch})"

    @property
    def target(self) -> Target:
        """The recipe and architecture that it builds."""
        return self.recipe.name, self.arch

    def with_base(self, base: Base) -> Job:
        """Return the same job with its base, now that it is known; the recipe's files are not read again."""
        return replace(self, base=base, inputs=self.inputs.with_base(base.digest).with_images(base.others))


@dataclass(frozen=True)
class Kept:
    """One recipe for one architecture whose published release is up to date; release: None if withdrawn."""

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
    """A plan. jobs: ordered by recipe:// bases; a job of wave n needs only images of earlier waves."""

    jobs: tuple[Job, ...] = ()
    kept: tuple[Kept, ...] = ()
    stuck: tuple[Stuck, ...] = ()

"""The interface of everything that can run a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from factory.oci.digest import Digest

Made = TypeVar("Made")


@dataclass(frozen=True)
class BuildRequest:
    """What a runner must know to start a build.

    candidates: the folder for the candidate; timeout: the recipe's time limit; force: build even if there is a
    candidate; fresh: even if another job has just built it. key: a digest of the recipe's files and of those of its
    bases; the same key is the same build. after: the recipe that must be built first, '' if its base is ready.
    seconds: how long the last build took.
    """

    recipe: str
    arch: str
    candidates: Path
    timeout: timedelta
    force: bool
    fresh: bool = False
    key: str = ""
    after: str = ""
    seconds: float | None = None

    @property
    def target(self) -> tuple[str, str]:
        """The recipe and architecture that it builds."""
        return self.recipe, self.arch


@dataclass(frozen=True)
class BuildTask(Generic[Made]):
    """One build, and how its result is obtained.

    build runs the build in this process. collect reads the result of another process: it takes the digest of the SIF,
    and raises NotFound until that SIF is visible here.
    """

    request: BuildRequest
    build: Callable[[], Made]
    collect: Callable[[Digest], Made]


class Runner(Protocol):
    """Runs builds on some machine."""

    @property
    def elsewhere(self) -> bool:
        """Whether builds run on another machine, which also tests them and writes the reports."""

    def queue(self, requests: Sequence[BuildRequest]) -> None:
        """Start builds whose results ``build`` is asked for later, or do nothing. Bases come first."""

    def queued(self, target: tuple[str, str]) -> bool:
        """Whether a build was queued, and neither its result was asked for nor was it dropped."""

    def drop(self, target: tuple[str, str]) -> None:
        """End a queued build whose result is not needed."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Run a build and return its result. Raises FactoryError, from the build or from the machine."""

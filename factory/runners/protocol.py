"""The interface of everything that can run a build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from factory.oci.digest import Digest

Made = TypeVar("Made")


@dataclass(frozen=True)
class BuildTask(Generic[Made]):
    """One build.

    candidates: the folder for the candidate; timeout: the recipe's time limit; force: build even if there is a
    candidate. build runs the build in this process. collect reads the result of another process: it takes the
    digest of the SIF, and raises NotFound until that SIF is visible here. seconds: how long the last build took.
    """

    recipe: str
    arch: str
    candidates: Path
    timeout: timedelta
    force: bool
    build: Callable[[], Made]
    collect: Callable[[Digest], Made]
    seconds: float | None = None


class Runner(Protocol):
    """Runs builds on some machine."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Run a build and return its result. Raises FactoryError, from the build or from the machine."""

"""One protocol for every place where a build can run."""

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
    """One build, and the two ways to what it makes.

    candidates: the folder that the candidate goes into; timeout: the recipe's own; force: do not take a
    candidate that is there. build does the work in this process. collect reads what another process made: it
    takes the digest of the SIF and raises NotFound as long as that one is not to be seen.
    """

    recipe: str
    arch: str
    candidates: Path
    timeout: timedelta
    force: bool
    build: Callable[[], Made]
    collect: Callable[[Digest], Made]


class Runner(Protocol):
    """A place where builds run."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Build, and return what was made. Raises FactoryError: the build's own, or that of the place."""

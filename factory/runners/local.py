"""Builds in this process."""

from __future__ import annotations

from collections.abc import Sequence

from factory.runners.protocol import BuildRequest, BuildTask, Made


class LocalRunner:
    """Runs builds in the calling process, one after another."""

    elsewhere = False

    def queue(self, requests: Sequence[BuildRequest]) -> None:
        """Do nothing: a build starts when its result is asked for."""

    def queued(self, target: tuple[str, str]) -> bool:  # noqa: ARG002 - the interface of runners
        """Return False."""
        return False

    def drop(self, target: tuple[str, str]) -> None:
        """Do nothing."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Run the build and return its result."""
        return task.build()

"""Builds in this process."""

from __future__ import annotations

from factory.runners.protocol import BuildTask, Made


class LocalRunner:
    """Runs builds in the calling process."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Run the build and return its result."""
        return task.build()

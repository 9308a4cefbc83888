"""Builds in this process."""

from __future__ import annotations

from factory.runners.protocol import BuildTask, Made


class LocalRunner:
    """This machine."""

    def build(self, task: BuildTask[Made]) -> Made:
        """Build here and now."""
        return task.build()

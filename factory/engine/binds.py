"""A bind: a path of this machine that is visible inside a container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.errors import UsageError


@dataclass(frozen=True)
class Bind:
    """A host path that is bound into the container."""

    source: Path
    target: str
    writable: bool = False

    def __post_init__(self) -> None:
        """Refuse a path that the engine would parse as several binds or as options. Recipes choose some paths."""
        for path in (str(self.source), self.target):
            if any(letter in path for letter in ',:\\"') or not path.isprintable():
                raise UsageError(
                    f"{path!a} cannot be bound into an image",
                    why="the engine does not accept , : \\ quotes and unprintable characters in the path of a bind",
                    fix="rename the file or its folder",
                )

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"

"""The disk space of a build: enough before it starts, the right advice if it runs out, and how much it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from factory.errors import NoRoom
from factory.io import files, trees
from factory.recipes.model import Recipe

_LAST_STEP = "Creating SIF file"  # engines print it when the root file system is complete
_COPIES = 2  # of the image at the end: engines write the squashfs to a temporary file, then copy it into the SIF


def require(recipe: Recipe, scratch: Path, folder: Path) -> None:
    """Raise NoRoom unless both folders have the recipe's [build] disk free. folder: where the image goes."""
    needed = recipe.build.disk
    for where, setting in ((scratch, "SINGFACTORY_TMPDIR"), (folder, "SINGFACTORY_WORK")):
        free = files.free_space(where)
        if free is not None and free < needed:
            raise NoRoom(
                f"not enough space in {where} to build {recipe.name}",
                why=f"[build] disk in its recipe.toml is {files.readable_size(needed)}, "
                f"{files.readable_size(free)} are free",
                fix=f"free some space, or set {setting} to a folder on a larger disk",
            )


@contextmanager
def advice(recipe: Recipe) -> Iterator[None]:
    """Add to a NoRoom of a build what the recipe declares, and that this is what to change."""
    try:
        yield
    except NoRoom as error:
        declared = f"its [build] disk is {files.readable_size(recipe.build.disk)}"
        raise NoRoom(
            f"{recipe.name} needs more disk space than there was: {error.what}",
            why="; ".join(filter(None, (error.why, declared))),
            fix="raise [build] disk in recipe.toml (over 14GB, jobs on GitHub free more space first); "
            "on your own machine, set SINGFACTORY_TMPDIR to a folder on a larger disk",
            detail=error.detail,
        ) from error


class Use:
    """Estimates the most space that a build takes, from its root file system before the last step and its image."""

    def __init__(self, scratch: Path, on_line: Callable[[str], None], *, before: int = 0, kept: int = 0) -> None:
        """Watch a build. scratch: its folder. before: bytes of an earlier step; kept: those of its result."""
        self._scratch = scratch
        self._before, self._kept = before, kept
        self._on_line = on_line
        self._before_last_step = 0

    def line(self, text: str) -> None:
        """Take a line of the engine's output, and pass it on."""
        if _LAST_STEP in text and not self._before_last_step:
            self._before_last_step = trees.disk_use(self._scratch)
        self._on_line(text)

    def peak(self, image_size: int) -> int:
        """Return the bytes that the build took at most; 0 if the engine did not show its last step."""
        if not self._before_last_step:
            return 0
        return max(self._before, self._kept + self._before_last_step + _COPIES * image_size)

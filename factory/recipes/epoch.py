"""SOURCE_DATE_EPOCH: the time that builds of a recipe use instead of the current time.

Specification: https://reproducible-builds.org/specs/source-date-epoch/
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from factory.io import git
from factory.recipes.document import read_leniently
from factory.recipes.model import Recipe

EARLIEST = 315532800  # 1980-01-01: ZIP archives, and so Python wheels, cannot store an earlier time


def epoch_of(recipe: Recipe, env: Mapping[str, str]) -> int:
    """Return when the recipe or one of its base recipes last changed, in seconds since 1970.

    This is the time of the last commit; outside of git, or with uncommitted changes, that of the newest file. It is not
    part of the input key: a commit that changes no input must not rebuild an image. env: git's environment.
    """
    folders = tuple(_family(recipe))
    project = git.find(recipe.folder.parent, env)
    return max((project.committed(folders) if project else 0) or _newest(folders), EARLIEST)


def _family(recipe: Recipe) -> Iterator[Path]:
    """Yield the folders of the recipe and its base recipes: no file of a base image may be newer than the epoch."""
    seen: set[Path] = set()
    following: Recipe | None = recipe
    while following is not None and following.folder not in seen:
        yield following.folder
        seen.add(following.folder)
        base = following.folder.parent / following.base_recipe
        following = read_leniently(base)[0] if following.base_recipe and base.is_dir() else None


def _newest(folders: tuple[Path, ...]) -> int:
    """Return the newest modification time. Hidden files and `__pycache__`, which programs write, do not count."""
    newest, waiting = 0, [*folders]
    while waiting:  # not os.walk, which calls itself for each folder in a folder before Python 3.12
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    newest = max(newest, int(entry.stat(follow_symlinks=False).st_mtime))
    return newest

"""The input of a readiness check: the files of an image, and the recipe."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from factory.recipes.codes import CODES, Severity
from factory.recipes.model import Recipe
from factory.records.findings import Finding
from factory.sif.packaged import packaged_files
from factory.sif.tree import Entry, FilesUnknown, Tree
from factory.sif.variables import USUAL_PATH, Variable, variables

_MOST_LINKS = 40  # the limit of Linux
_MOST_LETTERS = 500_000_000  # of all paths that are resolved; an image with 300,000 links takes a fifth
_STEP = 16  # letters that a step on the way counts for
_MOST_FOLDERS = 100  # of PATH
_LARGEST_SCRIPT = 1 << 18  # bytes


@dataclass(frozen=True)
class Subject:
    """An image and its recipe. arch: the architecture that the image claims, such as ``amd64``."""

    recipe: Recipe
    tree: Tree
    arch: str
    _spent: list[int] = field(default_factory=lambda: [0], repr=False)

    @staticmethod
    def finding(code: str, place: str, message: str, *, remedy: str = "", severity: Severity | None = None) -> Finding:
        """Return a finding. remedy, severity: instead of those of the code."""
        known = CODES[code]
        return Finding(code, severity or known.severity, place, message, known.effect, remedy or known.remedy)

    def resolve(self, path: str) -> Entry | None:
        """Return the entry at an absolute path with all links followed inside the image; None if there is none.

        Raises FilesUnknown if the image makes this take too long.
        """
        waiting = self._parts(path)
        place = ""  # what has been reached, '' for the root
        links = 0
        while waiting:
            part = waiting.pop()
            self._spend(_STEP + len(place) // 8)
            if part == "..":
                place = place.rpartition("/")[0]
                continue
            entry = self.tree.get(f"{place}/{part}")
            if entry is None:
                return None
            if entry.inode.kind != "symlink":
                place = entry.path
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            target = entry.inode.target
            place = "" if target.startswith("/") else place
            waiting += self._parts(target)
        return self.tree.get(place or "/")

    def _parts(self, path: str) -> list[str]:
        """Return the parts of a path, the last one first."""
        self._spend(len(path))
        return [part for part in reversed(path.split("/")) if part not in ("", ".")]

    def _spend(self, letters: int) -> None:
        self._spent[0] += letters
        if self._spent[0] > _MOST_LETTERS:
            raise FilesUnknown("the links in the image cannot be followed", why="they take too long")

    def text(self, path: str, most: int = _LARGEST_SCRIPT) -> str:
        """Return the beginning of a file as text, links followed; '' if there is none."""
        entry = self.resolve(path)
        return "" if entry is None else self.tree.head(entry, most).decode("utf-8", "surrogateescape")

    @cached_property
    def variables(self) -> Mapping[str, Variable]:
        """The variables of the image's environment, in the order in which the engine sets them; the last value counts.

        Only plain assignments are understood; what a value takes from variables that are not the image's keeps its $.
        """
        return variables(self.tree)

    @cached_property
    def packaged(self) -> Collection[str]:
        """The paths that packages of the distribution (dpkg, apk) own, which everyone can fetch from its archive."""
        return packaged_files(self.tree)

    @cached_property
    def search_path(self) -> tuple[str, ...]:
        """The folders of the image's PATH that are known, in order."""
        variable = self.variables.get("PATH")
        parts = variable.value.split(":") if variable else []
        known = [part for part in dict.fromkeys(parts) if part.startswith("/") and "$" not in part]
        return tuple(known[:_MOST_FOLDERS]) or USUAL_PATH

    @cached_property
    def path_folders(self) -> tuple[str, ...]:
        """The folders that PATH leads to, with links followed."""
        found = (self.resolve(folder) for folder in self.search_path)
        return tuple(dict.fromkeys(entry.path for entry in found if entry is not None))

    def program(self, name: str) -> Entry | None:
        """Return the file that a command names, by PATH or as an absolute path; None if there is none."""
        places = [name] if name.startswith("/") else [posixpath.join(folder, name) for folder in self.search_path]
        found = (self.resolve(place) for place in places)
        return next((entry for entry in found if entry is not None and entry.inode.kind == "file"), None)

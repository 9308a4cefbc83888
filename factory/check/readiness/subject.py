"""The input of a readiness check: the files of an image, and the recipe."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from factory.recipes.codes import CODES, Severity
from factory.recipes.model import Recipe
from factory.records.findings import Finding
from factory.sif.packaged import packaged_files
from factory.sif.tree import Entry, Tree

_MOST_LINKS = 40  # the limit of Linux
_ENVIRONMENT = re.compile(r"/\.singularity\.d/env/[^/]+\.sh")
_LARGEST_SCRIPT = 1 << 20  # bytes
_MOST_SCRIPTS = 100
_LONGEST_LINE = 1 << 14  # characters
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_DEFAULT = re.compile(r'\$\{[A-Za-z_][A-Za-z0-9_]*:?-"?([^"{}]*)"?\}')


@dataclass(frozen=True)
class Variable:
    """A variable that the image's own environment sets, as written. script: the path of the script that sets it."""

    name: str
    value: str
    script: str


@dataclass(frozen=True)
class Subject:
    """An image and its recipe. arch: the architecture that the image claims, such as ``amd64``."""

    recipe: Recipe
    tree: Tree
    arch: str

    @staticmethod
    def finding(code: str, place: str, message: str, *, remedy: str = "", severity: Severity | None = None) -> Finding:
        """Return a finding. remedy, severity: instead of those of the code."""
        known = CODES[code]
        return Finding(code, severity or known.severity, place, message, known.effect, remedy or known.remedy)

    def resolve(self, path: str) -> Entry | None:
        """Return the entry at an absolute path with all links followed inside the image; None if there is none."""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                del done[-1:]
                continue
            entry = self.tree.get("/" + "/".join([*done, part]))
            if entry is None:
                return None
            if entry.inode.kind != "symlink":
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            target = entry.inode.target
            if target.startswith("/"):
                done = []
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return self.tree.get("/" + "/".join(done))

    def text(self, path: str, most: int = _LARGEST_SCRIPT) -> str:
        """Return the beginning of a file as text, links followed; '' if there is none."""
        entry = self.resolve(path)
        return "" if entry is None else self.tree.head(entry, most).decode("utf-8", "surrogateescape")

    @cached_property
    def variables(self) -> Mapping[str, Variable]:
        """The variables of the image's environment, in the order in which the engine sets them; the last value counts.

        Only plain assignments are understood: a value that depends on other variables keeps its ``$``.
        """
        found: dict[str, Variable] = {}
        scripts = [path for path in self.tree.entries if _ENVIRONMENT.fullmatch(path)]
        for path in scripts[:_MOST_SCRIPTS]:
            for name, value in assignments(self.text(path)):
                found[name] = Variable(name, value, path)
        return found

    @cached_property
    def packaged(self) -> Collection[str]:
        """The paths that packages of the distribution (dpkg, apk) own, which everyone can fetch from its archive."""
        return packaged_files(self.tree)

    @cached_property
    def search_path(self) -> tuple[str, ...]:
        """The folders of the image's PATH that are known, in order."""
        variable = self.variables.get("PATH")
        parts = variable.value.split(":") if variable else []
        folders = [part for part in parts if part.startswith("/") and "$" not in part]
        return tuple(dict.fromkeys(folders)) or _USUAL_PATH

    def program(self, name: str) -> Entry | None:
        """Return the file that a command names, by PATH or as an absolute path; None if there is none."""
        places = [name] if name.startswith("/") else [posixpath.join(folder, name) for folder in self.search_path]
        found = (self.resolve(place) for place in places)
        return next((entry for entry in found if entry is not None and entry.inode.kind == "file"), None)


_USUAL_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def assignments(script: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values that a shell script assigns on lines of their own, ``export A=b C="d"`` included.

    ``${NAME:-default}`` becomes the default, which is how engines write the variables of Docker images.
    """
    for line in script.splitlines():
        if "=" not in line or len(line) > _LONGEST_LINE:
            continue
        try:
            words = shlex.split(_DEFAULT.sub(r"\1", line), comments=True)
        except ValueError:  # a string that goes on in the next line
            continue
        if words and words[0] == "export":
            words = words[1:]
        pairs = [_ASSIGNMENT.fullmatch(word) for word in words]
        if all(pairs):  # else they are the variables of one command
            yield from ((pair[1], pair[2]) for pair in pairs if pair)

"""Find the programs of an image: the executable files in the folders of its PATH, without running anything."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factory.oci.names import is_program
from factory.sif.tree import Entry, Tree
from factory.sif.variables import USUAL_PATH, folders, variables

SYSTEM = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/sbin", "/usr/games", "/usr/local/games"})
_MOST = 2000
_MOST_LINKS = 16
_EXECUTABLE = 0o111


@dataclass(frozen=True)
class Programs:
    """The programs that were found, sorted. places: the folders that they are in. missing: wanted, but not there."""

    found: tuple[str, ...]
    places: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def programs_of(tree: Tree, wanted: Sequence[str] = ()) -> Programs:
    """Return the wanted programs that are on the image's PATH.

    By default those in folders that the image adds to its PATH, and in /usr/local/bin: not the system's own. Raises
    FilesUnknown if the image is damaged.
    """
    path = variables(tree).get("PATH")
    searched = folders(path.value) if path else ()
    searched = searched or USUAL_PATH
    if wanted:
        there = {name for folder in searched for name in _in(tree, folder)}
        named = tuple(dict.fromkeys(wanted))
        return Programs(
            tuple(name for name in named if name in there), searched, tuple(name for name in named if name not in there)
        )
    places = tuple(folder for folder in searched if folder not in SYSTEM)
    found = {name for folder in places for name in _in(tree, folder)}
    return Programs(tuple(sorted(found)[:_MOST]), places)


def _in(tree: Tree, folder: str) -> Iterator[str]:
    """Yield the names of the executable files in a folder, which may be a link to another."""
    real = _resolved(tree, folder)
    if real is None or real.inode.kind != "folder":
        return
    prefix = real.path.rstrip("/") + "/"
    for path, entry in tree.entries.items():
        name = path[len(prefix) :] if path.startswith(prefix) else ""
        if name and "/" not in name and is_program(name):
            target = _resolved(tree, path) if entry.inode.kind == "symlink" else entry
            if target is not None and target.inode.kind == "file" and target.inode.mode & _EXECUTABLE:
                yield name


def _resolved(tree: Tree, path: str) -> Entry | None:
    """Return the entry that a path leads to, through links in any of its parts; None if it leads nowhere."""
    left = _MOST_LINKS
    parts = [part for part in path.split("/") if part][::-1]
    at = "/"
    while parts:
        part = parts.pop()
        at = posixpath.normpath(posixpath.join(at, part))
        entry = tree.get(at)
        if entry is None:
            return None
        if entry.inode.kind == "symlink":
            left -= 1
            if left < 0:
                return None
            target = entry.inode.target
            at = "/" if target.startswith("/") else posixpath.dirname(at)
            parts += [step for step in target.split("/") if step][::-1]
    return tree.get(at)

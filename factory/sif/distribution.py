"""Read the Linux distribution of an image from its os-release file, without running the image."""

from __future__ import annotations

import posixpath
import re

from factory.sif.tree import Entry, Tree

_PLACES = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5): the first one that exists
_MOST_LINKS = 8
_HEAD = 64 << 10  # bytes; the file usually has a dozen short lines
_ID = re.compile(rb"""^ID=(["']?)([A-Za-z0-9._-]{1,64})\1[ \t\r]*$""", re.MULTILINE)


def distribution(tree: Tree) -> str:
    """Return the distribution's ``ID`` in lower case, such as ``debian``, or '' if there is none.

    Raises FilesUnknown if the image is damaged.
    """
    for place in _PLACES:
        entry = _followed(tree, place)
        if entry is not None and entry.inode.kind == "file":
            values = _ID.findall(tree.head(entry, _HEAD))
            return values[-1][1].decode().lower() if values else ""  # a shell keeps the last assignment
    return ""


def _followed(tree: Tree, path: str) -> Entry | None:
    """Return the entry at an absolute path, with links resolved inside the image."""
    for _ in range(_MOST_LINKS):
        entry = tree.get(path)
        if entry is None or entry.inode.kind != "symlink":
            return entry
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.inode.target))
        path = "/" + path.lstrip("/")  # normpath keeps two leading slashes
    return None

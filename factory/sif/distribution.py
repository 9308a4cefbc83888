"""The Linux distribution in an image, read from its os-release file. Nothing is run."""

from __future__ import annotations

import posixpath
import re

from factory.sif.tree import Entry, Tree

_PLACES = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5): the first one that exists
_MOST_LINKS = 8
_HEAD = 64 << 10  # bytes; the file has a dozen short lines
_ID = re.compile(rb"""^ID=(["']?)([A-Za-z0-9._-]{1,64})\1[ \t\r]*$""", re.MULTILINE)


def distribution(tree: Tree) -> str:
    """The distribution's ``ID`` in lower case, such as ``debian``; '' when the image does not say.

    Raises FilesUnknown when the image is damaged.
    """
    for place in _PLACES:
        entry = _followed(tree, place)
        if entry is not None and entry.inode.kind == "file":
            values = _ID.findall(tree.head(entry, _HEAD))
            return values[-1][1].decode().lower() if values else ""  # a shell keeps the last assignment
    return ""


def _followed(tree: Tree, path: str) -> Entry | None:
    """The entry at an absolute path; links are followed inside the image, where its own root is the root."""
    for _ in range(_MOST_LINKS):
        entry = tree.get(path)
        if entry is None or entry.inode.kind != "symlink":
            return entry
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.inode.target))
        path = "/" + path.lstrip("/")  # normpath keeps two leading slashes
    return None

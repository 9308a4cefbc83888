"""The files that packages of a distribution own, from dpkg's and apk's lists. Nothing of the image is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from factory.sif.tree import Tree

_LINE = re.compile(rb"^(/[^\n]+)$", re.MULTILINE)
_ENTRY = re.compile(rb"^(?:F:([^\n]*)|R:([^\n]+))$", re.MULTILINE)
_DPKG = re.compile(r"/var/lib/dpkg/info/[^/]+\.list")
_APK = re.compile(r"/(?:usr/)?lib/apk/db/installed")
_MERGED = re.compile(r"/(?:bin|sbin|lib|lib32|lib64|libx32)/")  # links into /usr in most images of today
_ALL_READ = 64 << 20  # bytes of all lists; a desktop has 20 MB
_MOST_LINES = 2_000_000  # of all lists; a desktop has 300,000
_LEAST_READ = 8 << 10  # bytes that each list counts for


def packaged_files(tree: Tree) -> frozenset[str]:
    """Return the paths that installed packages own; those that lists of at most 64 MiB and two million lines name.

    Raises FilesUnknown if the image is damaged.
    """
    left, lines = _ALL_READ, _MOST_LINES
    found: set[str] = set()
    seen: set[int] = set()
    for path, entry in tree.entries.items():
        read = _of_dpkg if _DPKG.fullmatch(path) else _of_apk if _APK.fullmatch(path) else None
        if read is None or entry.inode.kind != "file" or entry.inode.number in seen:
            continue
        seen.add(entry.inode.number)
        left -= max(entry.inode.size, _LEAST_READ)
        if left < 0:
            break
        for raw in islice(read(tree.head(entry, entry.inode.size)), lines):
            lines -= 1
            owned = raw.decode("utf-8", "surrogateescape")
            if owned in tree.entries:
                found.add(owned)
            elif _MERGED.match(owned) and f"/usr{owned}" in tree.entries:
                found.add(f"/usr{owned}")
    return frozenset(found)


def _of_dpkg(content: bytes) -> Iterator[bytes]:
    return (match[1] for match in _LINE.finditer(content))


def _of_apk(content: bytes) -> Iterator[bytes]:
    """Yield the files of apk's database: ``F:`` names a folder, the ``R:`` lines after it the files in it."""
    folder = b""
    for match in _ENTRY.finditer(content):
        if match[2] is None:
            folder = match[1]
        else:
            yield b"/" + folder + b"/" + match[2]

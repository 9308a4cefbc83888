"""What makes an image large: caches, files that are stored twice, and the largest folders."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from factory.check.readiness.subject import Subject
from factory.io.files import readable_size
from factory.records.findings import Finding
from factory.sif.tree import Entry

_CACHES = re.compile(
    r"(/var/cache/apt/archives|/var/lib/apt/lists|/var/cache/(?:dnf|yum|apk|zypp|pacman/pkg|ldconfig-old)|/var/log"
    r"|/(?:root|home/[^/]+)/(?:\.cache|\.npm|\.ccache|\.cargo/registry|\.conda/pkgs|\.nuget/packages|\.m2/repository)"
    r"|/(?:opt|usr/local|root|home/[^/]+)/(?:[^/]+/)?(?:(?:mini|micro|ana)?(?:conda|mamba|forge)[0-9]?)/pkgs"
    r"|/opt/conda/pkgs|/usr/local/share/\.cache|/usr/local/cargo/registry|(?:/root)?/go/pkg/mod/cache)/.*",
    re.IGNORECASE | re.DOTALL,
)
_LEAST_CACHE = 1_000_000  # bytes
_LEAST_DUPLICATE = 1_000_000
_LEAST_DUPLICATES = 10_000_000  # bytes of all copies that are worth a line
_MOST_HASHED = 2 << 30  # bytes
_LARGEST = 10  # folders
_MOSTLY = 0.6  # of a folder, in the folders in it
_SMALL = 0.25  # of the image: such a folder is not looked into
_LEAST_FOLDER = 1_000_000


def _caches(subject: Subject) -> Iterator[Finding]:
    sizes: dict[str, int] = defaultdict(int)
    for path, entry in subject.tree.entries.items():
        match = _CACHES.fullmatch(path)
        if match and entry.inode.kind == "file":
            sizes[match[1]] += entry.inode.size
    for place, size in sizes.items():
        if size >= _LEAST_CACHE:
            remedy = f"remove it at the end of %post: rm -rf {place}/*"
            yield subject.finding("cache", place, f"{readable_size(size)} of caches or logs", remedy=remedy)


def _duplicates(subject: Subject) -> Iterator[Finding]:
    """Large files with the same contents that are stored more than once. mksquashfs stores equal files once."""
    by_size: dict[int, dict[tuple[object, ...], Entry]] = defaultdict(dict)
    for entry in subject.tree.entries.values():
        if entry.inode.kind == "file" and entry.inode.size >= _LEAST_DUPLICATE:
            by_size[entry.inode.size].setdefault(subject.tree.same_content(entry), entry)
    wasted, example, left = 0, "", _MOST_HASHED
    for size, stored in sorted(by_size.items(), reverse=True):
        left -= size * len(stored) if len(stored) > 1 else 0
        if len(stored) < 2 or left < 0:  # noqa: PLR2004 - a pair
            continue
        first: dict[bytes, str] = {}
        for entry in stored.values():
            same = first.setdefault(_digest(subject, entry), entry.path)
            if same != entry.path:
                wasted += size
                example = example or f"{same} and {entry.path}"
    if wasted >= _LEAST_DUPLICATES:
        yield subject.finding("duplicate-files", "/", f"{readable_size(wasted)} are stored twice, such as {example}")


def _digest(subject: Subject, entry: Entry) -> bytes:
    digest = hashlib.sha256()
    for block in subject.tree.read(entry):
        digest.update(block)
    return digest.digest()


def _folders(subject: Subject) -> Iterator[Finding]:
    """The ten largest folders that say where the size is: one that mostly consists of folders is replaced by them."""
    sizes = _sizes(subject)
    inside: dict[str, list[str]] = defaultdict(list)
    for folder, size in sizes.items():
        if folder != "/" and size >= _LEAST_FOLDER:
            inside[folder.rpartition("/")[0] or "/"].append(folder)
    chosen = inside["/"]
    while True:
        chosen = sorted(chosen, key=lambda folder: (-sizes[folder], folder))[:_LARGEST]
        mostly = (one for one in chosen if sum(sizes[part] for part in inside[one]) >= _MOSTLY * sizes[one])
        folder = next(mostly, "")
        if not folder or sizes[folder] < _SMALL * sizes["/"]:
            break
        chosen = [*(one for one in chosen if one != folder), *inside[folder]]
    if chosen:
        listed = ", ".join(f"{folder} {readable_size(sizes[folder])}" for folder in chosen)
        yield subject.finding("largest-folders", "/", f"{readable_size(sizes['/'])} of files: {listed}")


def _sizes(subject: Subject) -> Mapping[str, int]:
    """Return the bytes of files below each folder; hard links count once."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for path, entry in reversed(subject.tree.entries.items()):  # a folder comes before what is in it
        if entry.inode.kind == "folder":
            sizes.setdefault(path, 0)
        elif entry.inode.size and entry.inode.number not in seen:
            seen.add(entry.inode.number)
            above = path.rpartition("/")[0] or "/"
            sizes[above] = sizes.get(above, 0) + entry.inode.size
    for path in sorted(sizes, key=lambda one: one.count("/"), reverse=True):
        if path != "/":
            above = path.rpartition("/")[0] or "/"
            sizes[above] = sizes.get(above, 0) + sizes[path]
    return sizes


CHECKS = (_caches, _duplicates, _folders)

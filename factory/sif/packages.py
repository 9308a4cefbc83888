"""The packages that are installed in an image, read from the databases of their managers. Nothing is run.

Read are dpkg (``/var/lib/dpkg/status``, and ``status.d`` of images without dpkg), apk, Python distributions (core
metadata in ``*.dist-info`` and ``*.egg-info``), conda (``conda-meta``) and R (``DESCRIPTION`` of what was built).
Binary databases, rpm's above all, are not: their manager is named as unknown.

What is found is text that the image's maker chose. Names and versions are cut to 200 characters and hold nothing
that a terminal would act on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from factory.sif.tree import Entry, Tree

_LARGEST_DATABASE = 64 << 20  # bytes; Debian with everything in it has 60
_HEAD = 64 << 10  # bytes; a distribution's name and version stand at the top, its description may be long
_MOST_PACKAGES = 200_000
_LONGEST = 200  # characters of a name or a version

_DPKG = re.compile(r"/var/lib/dpkg/status(\.d/[^/]+)?")
_APK = re.compile(r"/(usr/)?lib/apk/db/installed")
_PYTHON = re.compile(r".*/[^/]+(\.dist-info/METADATA|\.egg-info/PKG-INFO|\.egg-info)")
_CONDA = re.compile(r".*/conda-meta/(?P<name>[^/]+)-(?P<version>[^/-]+)-[^/-]+\.json", re.DOTALL)
_R = re.compile(r".*/(site-)?library/[^/]+/DESCRIPTION")
_UNREAD = {
    "rpm": re.compile(r"/(var/lib|usr/lib/sysimage|usr/share)/rpm/(Packages|Packages\.db|rpmdb\.sqlite)"),
    "pacman": re.compile(r"/var/lib/pacman/local"),
    "portage": re.compile(r"/var/db/pkg"),
}


@dataclass(frozen=True, order=True, slots=True)
class Package:
    """An installed package. manager: ``apk``, ``conda``, ``dpkg``, ``python`` or ``r``.

    Names of Python distributions are normalized (``typing-extensions``).
    """

    manager: str
    name: str
    version: str


@dataclass(frozen=True)
class Packages:
    """The packages of an image, ordered, each once.

    unknown: managers, or files of theirs, that are in the image and were not read; where it is not empty, what is
    not in ``found`` may be installed all the same.
    """

    found: tuple[Package, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class VersionChange:
    """A package that has another version, newer or older: managers do not agree on what is newer."""

    manager: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class PackageChanges:
    """What differs between the packages of two images, each list ordered."""

    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    changed: tuple[VersionChange, ...]


def installed(tree: Tree) -> Packages:
    """The packages that an image's databases name.

    Raises FilesUnknown when the image is damaged. A database that is not what it should be gives no packages.
    """
    found: set[Package] = set()
    unknown: set[str] = set()
    seen: set[int] = set()
    for path, entry in tree.entries.items():
        unknown.update(name for name, pattern in _UNREAD.items() if pattern.fullmatch(path))
        for manager, (pattern, read) in _MANAGERS.items():
            if not pattern.fullmatch(path):
                continue
            if entry.inode.kind == "file":
                if id(entry.inode) in seen and manager != "conda":
                    continue  # a million names of one file are one file
                seen.add(id(entry.inode))
                _take(found, unknown, manager, path, read(tree, entry))
            elif entry.inode.kind == "symlink" and manager in ("dpkg", "apk"):
                unknown.add(manager)
    return Packages(tuple(sorted(found)), tuple(sorted(unknown)))


def package_changes(before: Packages, after: Packages) -> PackageChanges:
    """Which packages two images do not have in common.

    A package that is there several times, as in two Python environments, is compared version by version.
    """
    added, removed, changed = [], [], []
    old, new = _versions(before), _versions(after)
    for manager, name in sorted(old.keys() | new.keys()):
        gone = sorted(old.get((manager, name), set()) - new.get((manager, name), set()))
        come = sorted(new.get((manager, name), set()) - old.get((manager, name), set()))
        both = min(len(gone), len(come))
        changed += [VersionChange(manager, name, *pair) for pair in zip(gone[:both], come[:both], strict=True)]
        removed += [Package(manager, name, version) for version in gone[both:]]
        added += [Package(manager, name, version) for version in come[both:]]
    return PackageChanges(tuple(added), tuple(removed), tuple(changed))


def _versions(packages: Packages) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for package in packages.found:
        found.setdefault((package.manager, package.name), set()).add(package.version)
    return found


_Pairs = Iterable[tuple[str, str]] | None


def _take(found: set[Package], unknown: set[str], manager: str, path: str, pairs: _Pairs) -> None:
    """Add names and versions to what was found; None says that the file cannot be read."""
    if pairs is None:
        unknown.add(f"{manager}: {_clean(path)}")
        return
    for name, version in pairs:
        if len(found) >= _MOST_PACKAGES:
            unknown.add(manager)
            return
        if name and version:
            found.add(Package(manager, _clean(name), _clean(version)))


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST])


def _dpkg(tree: Tree, entry: Entry) -> _Pairs:
    return _database(tree, entry, _dpkg_records)


def _dpkg_records(text: str) -> Iterator[tuple[str, str]]:
    for record in text.split("\n\n"):
        fields = _fields(record)
        # A package that was removed keeps its record while its configuration is there; status.d has no such field.
        if fields.get("Status", "install ok installed").endswith(" installed"):
            yield fields.get("Package", ""), fields.get("Version", "")


def _apk(tree: Tree, entry: Entry) -> _Pairs:
    return _database(tree, entry, _apk_records)


def _apk_records(text: str) -> Iterator[tuple[str, str]]:
    for record in text.split("\n\n"):
        fields = _fields(record)
        yield fields.get("P", ""), fields.get("V", "")


def _python(tree: Tree, entry: Entry) -> _Pairs:
    fields = _fields(_head(tree, entry))
    return [(re.sub(r"[-_.]+", "-", fields.get("Name", "")).lower(), fields.get("Version", ""))]


def _conda(_tree: Tree, entry: Entry) -> _Pairs:
    # The file's name is the package's full name; the file lists everything in it, and may be large.
    parts = _CONDA.fullmatch(entry.path)
    return [(parts["name"], parts["version"])] if parts else []


def _r(tree: Tree, entry: Entry) -> _Pairs:
    fields = _fields(_head(tree, entry))
    return [(fields.get("Package", ""), fields.get("Version", ""))] if "Built" in fields else []


def _head(tree: Tree, entry: Entry) -> str:
    return tree.head(entry, _HEAD).decode("utf-8", "replace")


def _database(tree: Tree, entry: Entry, records: Callable[[str], _Pairs]) -> _Pairs:
    if entry.inode.size > _LARGEST_DATABASE:
        return None
    return records(tree.head(entry, _LARGEST_DATABASE).decode("utf-8", "replace"))


def _fields(record: str) -> dict[str, str]:
    """The first value of each field of a record, up to an empty line; lines that go on with a value are left out."""
    fields: dict[str, str] = {}
    for line in record.lstrip("\n").split("\n"):
        if not line.strip("\r"):
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(name, value.strip())
    return fields


_MANAGERS: dict[str, tuple[re.Pattern[str], Callable[[Tree, Entry], _Pairs]]] = {
    "dpkg": (_DPKG, _dpkg),
    "apk": (_APK, _apk),
    "python": (_PYTHON, _python),
    "conda": (_CONDA, _conda),
    "r": (_R, _r),
}

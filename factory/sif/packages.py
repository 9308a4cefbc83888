"""The packages that are installed in an image, read from the databases of their managers. Nothing is run.

Read are dpkg (``/var/lib/dpkg/status``, and ``status.d`` of images without dpkg), apk, Python distributions (core
metadata in ``*.dist-info`` and ``*.egg-info``), conda (``conda-meta``) and R (``DESCRIPTION`` of what was built).
Binary databases, rpm's above all, are not read: their manager is named as unknown.

What is found is text that the image's maker chose. Names and versions are cut to 200 characters and hold nothing
that a terminal would act on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from factory.sif.distribution import distribution
from factory.sif.tree import Entry, Tree

_LARGEST_DATABASE = 64 << 20  # bytes; Debian with everything in it has 60
_HEAD = 64 << 10  # bytes; a distribution's name and version stand at the top, its description may be long
_ALL_READ = 128 << 20  # bytes of all databases and heads together
_LEAST_READ = 8 << 10  # bytes that each of them counts for: to unpack the block that it is in takes time
_MOST_RECORDS = 500_000  # of all databases, whatever they hold
_MOST_PACKAGES = 200_000
_ALL_TEXTS = 8 << 20  # characters of all names and versions
_MOST_UNREAD = 100  # files that are named as unread; of more, their manager only
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

    Names of Python distributions are normalized (``typing-extensions``). arch: as dpkg and apk call it, such as
    ``amd64`` or ``all``; '' for other managers.
    """

    manager: str
    name: str
    version: str
    arch: str = ""


@dataclass(frozen=True)
class Packages:
    """The packages of an image, ordered, each once.

    unknown: managers, or files of theirs, that are in the image and were not read; where it is not empty, what is
    not in ``found`` may be installed all the same. distribution: the ID in the image's os-release, such as
    ``debian``; '' where the image does not say, and for packages that were read from a document.
    """

    found: tuple[Package, ...]
    unknown: tuple[str, ...] = ()
    distribution: str = ""


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
    collected = _Collected(tree)
    for path, entry in tree.entries.items():
        collected.unknown.update(name for name, pattern in _UNREAD.items() if pattern.fullmatch(path))
        for manager, (pattern, read) in _MANAGERS.items():
            if pattern.fullmatch(path):
                collected.look_at(entry, manager, read)
    return Packages(tuple(sorted(collected.found)), tuple(sorted(collected.unknown)), distribution(tree))


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


class _TooLarge(Exception):
    """A file has more than is read of it."""


class _Exhausted(Exception):
    """All files together have more than is read."""


class _Collected:
    """Packages as they are found, within limits: an image may name one database a million times."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen: set[int] = set()
        self._read = self._records = self._letters = 0
        self.found: set[Package] = set()
        self.unknown: set[str] = set()

    def look_at(self, entry: Entry, manager: str, read: _Reader) -> None:
        """Add what an entry holds that looks like a manager's."""
        if entry.inode.kind == "symlink" and manager in ("dpkg", "apk"):
            self.unknown.add(manager)
        if entry.inode.kind != "file" or (id(entry.inode) in self._seen and manager != "conda"):
            return  # a million names of one file are one file
        self._seen.add(id(entry.inode))
        try:
            for name, version, arch in read(self, entry):
                self._add(manager, name, version, arch)
        except _TooLarge:
            self.unknown.add(f"{manager}: {_clean(entry.path)}" if len(self.unknown) < _MOST_UNREAD else manager)
        except _Exhausted:
            self.unknown.add(manager)

    def head(self, entry: Entry) -> bytes:
        """The top of a file, up to an empty line."""
        return _paragraph(self._taken(entry, _HEAD))

    def records(self, entry: Entry) -> Iterator[bytes]:
        """What stands between empty lines in a database; of long ones, the top, where names and versions are."""
        if entry.inode.size > _LARGEST_DATABASE:
            raise _TooLarge
        content = self._taken(entry, _LARGEST_DATABASE)
        at = 0
        for blank in chain(_BLANKS.finditer(content), (None,)):
            self._records += 1
            if self._records > _MOST_RECORDS:
                raise _Exhausted
            end = len(content) if blank is None else blank.start()
            yield _paragraph(content[at : min(end, at + _HEAD)])
            at = end if blank is None else blank.end()

    def _taken(self, entry: Entry, size: int) -> bytes:
        self._read += max(_LEAST_READ, min(size, entry.inode.size))
        if self._read > _ALL_READ:
            raise _Exhausted
        return self._tree.head(entry, size)

    def _add(self, manager: str, name: str, version: str, arch: str) -> None:
        if not name or not version:
            return
        package = Package(manager, _clean(name), _clean(version), _clean(arch))
        if package in self.found:
            return
        self._letters += len(package.name) + len(package.version) + len(package.arch)
        if len(self.found) >= _MOST_PACKAGES or self._letters > _ALL_TEXTS:
            raise _Exhausted
        self.found.add(package)


_Found = tuple[str, str, str]  # name, version, architecture
_Reader = Callable[[_Collected, Entry], Iterable[_Found]]


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST])


def _dpkg(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    for record in collected.records(entry):
        # A package that was removed keeps its record while its configuration is there; status.d has no such field.
        if (_field(record, "Status") or "install ok installed").endswith(" installed"):
            yield _field(record, "Package"), _field(record, "Version"), _field(record, "Architecture")


def _apk(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    for record in collected.records(entry):
        yield _field(record, "P"), _field(record, "V"), _field(record, "A")


def _python(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    head = collected.head(entry)
    yield re.sub(r"[-_.]+", "-", _field(head, "Name")).lower(), _field(head, "Version"), ""


def _conda(_collected: _Collected, entry: Entry) -> Iterator[_Found]:
    # The file's name is the package's full name; the file lists everything in it, and may be large.
    if parts := _CONDA.fullmatch(entry.path):
        yield parts["name"], parts["version"], ""


def _r(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    head = collected.head(entry)
    if _field(head, "Built"):
        yield _field(head, "Package"), _field(head, "Version"), ""


def _paragraph(content: bytes) -> bytes:
    """What stands before the first empty line; empty lines at the top do not count."""
    content = content.lstrip(b"\n")
    empty = _EMPTY.search(content)
    return content[: empty.start()] if empty else content


def _field(record: bytes, name: str) -> str:
    """The first value of a field, without the lines that go on with it; '' when there is none."""
    match = _FIELDS[name].search(record)
    return match[1].decode("utf-8", "replace").strip() if match else ""


_BLANKS = re.compile(rb"\n\n+")
_EMPTY = re.compile(rb"(?:^|\n)\r*\n")
_FIELDS = {
    name: re.compile(rb"^" + name.encode() + rb":([^\n]{0,2000})", re.MULTILINE)
    for name in ("Status", "Package", "Version", "Architecture", "P", "V", "A", "Name", "Built")
}
_MANAGERS: dict[str, tuple[re.Pattern[str], _Reader]] = {
    "dpkg": (_DPKG, _dpkg),
    "apk": (_APK, _apk),
    "python": (_PYTHON, _python),
    "conda": (_CONDA, _conda),
    "r": (_R, _r),
}

"""List the packages installed in an image from package managers' databases, without running the image.

Supported are dpkg (``/var/lib/dpkg/status``, and ``status.d`` in images without dpkg), apk, Python distributions (core
metadata in ``*.dist-info`` and ``*.egg-info``), conda (``conda-meta``) and R (``DESCRIPTION`` of built packages).
Binary databases such as rpm's are not read: their manager is listed as unknown.

Names and versions are untrusted text. They are cut to 200 characters, and control characters are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from factory.sif import SLOTS
from factory.sif.distribution import distribution
from factory.sif.tree import Entry, Tree

_LARGEST_DATABASE = 64 << 20  # bytes; all of Debian takes 60
_HEAD = 64 << 10  # bytes; name and version are at the top, a long description may follow
_ALL_READ = 128 << 20  # bytes of all databases and heads together
_LEAST_READ = 8 << 10  # bytes that each read counts for: decompressing its block takes time
_MOST_RECORDS = 500_000  # of all databases together
_MOST_PACKAGES = 200_000
_ALL_TEXTS = 8 << 20  # characters of all names and versions
_MOST_UNREAD = 100  # unread files listed by path; beyond that only their manager is listed
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


@dataclass(frozen=True, order=True, **SLOTS)
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
    """The packages of an image, ordered and distinct.

    unknown: managers, or their files, that are in the image but were not read; if it is not empty, ``found`` may be
    incomplete. distribution: the ID in the image's os-release, such as ``debian``; '' if there is none, and for
    packages read from a document.
    """

    found: tuple[Package, ...]
    unknown: tuple[str, ...] = ()
    distribution: str = ""


@dataclass(frozen=True, order=True, **SLOTS)
class VersionChange:
    """A package whose version changed. Which one is newer is not decided: managers order versions differently."""

    manager: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class PackageChanges:
    """The differences between the packages of two images, each list ordered."""

    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    changed: tuple[VersionChange, ...]


def installed(tree: Tree) -> Packages:
    """Return the packages in an image's databases.

    Raises FilesUnknown if the image is damaged. An invalid database yields no packages.
    """
    collected = _Collected(tree)
    for path, entry in tree.entries.items():
        collected.unknown.update(name for name, pattern in _UNREAD.items() if pattern.fullmatch(path))
        for manager, (pattern, read) in _MANAGERS.items():
            if pattern.fullmatch(path):
                collected.look_at(entry, manager, read)
    return Packages(tuple(sorted(collected.found)), tuple(sorted(collected.unknown)), distribution(tree))


def package_changes(before: Packages, after: Packages) -> PackageChanges:
    """Return the differences between the packages of two images.

    A package that is installed several times, as in two Python environments, is compared version by version.
    """
    added, removed, changed = [], [], []
    old, new = _versions(before), _versions(after)
    for manager, name in sorted(old.keys() | new.keys()):
        gone = sorted(old.get((manager, name), set()) - new.get((manager, name), set()))
        come = sorted(new.get((manager, name), set()) - old.get((manager, name), set()))
        both = min(len(gone), len(come))
        changed += [VersionChange(manager, name, *pair) for pair in zip(gone[:both], come[:both])]
        removed += [Package(manager, name, version) for version in gone[both:]]
        added += [Package(manager, name, version) for version in come[both:]]
    return PackageChanges(tuple(added), tuple(removed), tuple(changed))


def _versions(packages: Packages) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for package in packages.found:
        found.setdefault((package.manager, package.name), set()).add(package.version)
    return found


class _TooLarge(Exception):
    """A file is too large to be read."""


class _Exhausted(Exception):
    """All files together are too large to be read."""


class _Collected:
    """The packages found so far. Limits apply to all files together: an image can have a database under many names."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen: set[int] = set()
        self._read = self._records = self._letters = 0
        self.found: set[Package] = set()
        self.unknown: set[str] = set()

    def look_at(self, entry: Entry, manager: str, read: _Reader) -> None:
        """Add the packages in an entry whose path matches a manager's database."""
        if entry.inode.kind == "symlink" and manager in ("dpkg", "apk"):
            self.unknown.add(manager)
        if entry.inode.kind != "file" or (id(entry.inode) in self._seen and manager != "conda"):
            return  # hard links of one file are read once
        self._seen.add(id(entry.inode))
        try:
            for name, version, arch in read(self, entry):
                self._add(manager, name, version, arch)
        except _TooLarge:
            self.unknown.add(f"{manager}: {_clean(entry.path)}" if len(self.unknown) < _MOST_UNREAD else manager)
        except _Exhausted:
            self.unknown.add(manager)

    def head(self, entry: Entry) -> bytes:
        """Return the beginning of a file, up to an empty line."""
        return _paragraph(self._taken(entry, _HEAD))

    def records(self, entry: Entry) -> Iterator[bytes]:
        """Yield the records of a database, separated by empty lines; long ones are truncated."""
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
        # Removed packages keep a record while their configuration remains; status.d has no Status field.
        if (_field(record, "Status") or "install ok installed").endswith(" installed"):
            yield _field(record, "Package"), _field(record, "Version"), _field(record, "Architecture")


def _apk(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    for record in collected.records(entry):
        yield _field(record, "P"), _field(record, "V"), _field(record, "A")


def _python(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    head = collected.head(entry)
    yield re.sub(r"[-_.]+", "-", _field(head, "Name")).lower(), _field(head, "Version"), ""


def _conda(_collected: _Collected, entry: Entry) -> Iterator[_Found]:
    # The file's name has all we need; the file itself lists the package's contents and can be large.
    if parts := _CONDA.fullmatch(entry.path):
        yield parts["name"], parts["version"], ""


def _r(collected: _Collected, entry: Entry) -> Iterator[_Found]:
    head = collected.head(entry)
    if _field(head, "Built"):
        yield _field(head, "Package"), _field(head, "Version"), ""


def _paragraph(content: bytes) -> bytes:
    """Return the text before the first empty line, leading empty lines skipped."""
    content = content.lstrip(b"\n")
    empty = _EMPTY.search(content)
    return content[: empty.start()] if empty else content


def _field(record: bytes, name: str) -> str:
    """Return the first value of a field, without continuation lines; '' if there is none."""
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

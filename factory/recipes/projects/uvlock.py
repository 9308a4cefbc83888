"""Read `uv.lock` and the `pyproject.toml` that it belongs to.

Specification: https://docs.astral.sh/uv/concepts/projects/layout/#the-lockfile; tests hold this against `uv export`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from factory.errors import UsageError
from factory.recipes.model import ProblemError
from factory.recipes.projects import stale
from factory.recipes.projects.documents import Toml
from factory.recipes.projects.model import (
    HASH,
    NAME,
    VERSION,
    File,
    Package,
    RequiresPython,
    Target,
    file_name,
    has_login,
    holds,
    is_web_address,
    normalized,
    refused,
    requires_python,
)

_FORMAT = 1
_OWN = ("editable", "virtual", "directory")
# How uv writes which of the conflicting extras and groups are on.
_EXTRA = re.compile(r"extra (==|!=) '([^']*)'")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~-]{0,198}", re.ASCII)
_SCP = re.compile(r"^(?:ssh://|git@|git\+ssh)")


@dataclass(frozen=True)
class Chosen:
    """Which optional parts of a project the image has."""

    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class UvLock:
    """A `uv.lock` with the member of its workspace that an image is for."""

    def __init__(self, lock: Path, member: Path, chosen: Chosen) -> None:
        """lock: the file. member: the folder of the project, the lock's or one below. Raises ProblemError."""
        self._toml = Toml(lock)
        self.path = lock
        self._chosen = chosen
        self._packages = self._read()
        self._made: dict[int, Package] = {}
        self._by_name: dict[str, list[int]] = {}
        for index, package in enumerate(self._packages):
            self._by_name.setdefault(normalized(package["name"]), []).append(index)
        self._project = Toml(member / "pyproject.toml")
        self.roots = self._find_roots(member)
        self._check_chosen()
        stale.require_current(self._project, [self._packages[root] for root in self.roots[:1]], lock)
        stale.require_same_pythons(self._project, self.requires_python)
        self._refuse_logins()

    @cached_property
    def requires_python(self) -> RequiresPython:
        """The versions of Python that the lock is for."""
        text = self._toml.at("requires-python")
        return requires_python(text if isinstance(text, str) else "", self.path, self._toml.line("requires-python"))

    @property
    def name(self) -> str:
        """The project's name."""
        return str(self._packages[self.roots[0]]["name"])

    @property
    def version(self) -> str:
        """The project's version; '' if it is dynamic."""
        found = self._packages[self.roots[0]].get("version")
        return found if isinstance(found, str) else ""

    def needed(self, target: Target) -> tuple[Package, ...]:
        """Return the packages that the project needs on a platform, sorted by name. Raises ProblemError."""
        environment = target.environment()
        active = self._active()
        asked: set[int] = set()
        seen: set[tuple[int, str]] = set()
        waiting: list[tuple[int, str]] = []

        def follow(entries: object, *, root: bool = False) -> None:
            for entry in self._entries(entries):
                if not self._holds(entry.get("marker", ""), environment, active):
                    continue
                index = self._resolved(entry, environment, active)
                if root:
                    asked.add(index)
                waiting.extend((index, extra) for extra in ("", *self._names(entry.get("extra", ()))))

        for index in self.roots:
            root = self._packages[index]
            seen.add((index, ""))
            follow(root.get("dependencies"), root=True)
            for extra in self._chosen.extras:
                follow(_table(root, "optional-dependencies").get(extra), root=True)
            for group in self._chosen.groups:
                follow(_table(root, "dev-dependencies").get(group), root=True)
        while waiting:
            index, extra = waiting.pop()
            if (index, extra) in seen:
                continue
            seen.add((index, extra))
            package = self._packages[index]
            entries = _table(package, "optional-dependencies").get(extra) if extra else package.get("dependencies")
            follow(entries, root=self._own(package) is not None)
        found = {index: replace(self._package(index), asked=index in asked) for index, _ in seen}
        return tuple(sorted(found.values(), key=lambda package: (package.name, package.version)))

    def line_of(self, index: int) -> int:
        """Return the line of the package with this index; 0 if there is none."""
        return self._lines[index] if 0 <= index < len(self._lines) else 0

    @cached_property
    def _lines(self) -> list[int]:
        lines = enumerate(self._toml.text.split("\n"), 1)
        return [number + 1 for number, line in lines if line.startswith("[[package]]")]

    def _read(self) -> list[dict[str, Any]]:
        version = self._toml.at("version")
        if version != _FORMAT:
            message = f"this is no uv.lock of format {_FORMAT}" if not version else f"uv.lock has format {version}"
            remedy = f"run: uv lock, with a uv that writes format {_FORMAT}"
            raise refused(self.path, self._toml.line("version"), message, remedy)
        packages = self._toml.at("package") or []
        if not isinstance(packages, list) or not all(
            isinstance(package, dict) and isinstance(package.get("name"), str) for package in packages
        ):
            raise refused(self.path, self._toml.line("package"), "the list of packages is damaged", "run: uv lock")
        for index, package in enumerate(packages):
            if NAME.fullmatch(package["name"]) is None:
                raise self._damaged(index, f"{package['name']!a} is no name of a package")
        return packages

    def _find_roots(self, member: Path) -> tuple[int, ...]:
        """Return the entries of the project; of all members if the workspace's root is no project itself."""
        folder = member.resolve().relative_to(self.path.parent.resolve()).as_posix()
        own = {index: self._own(package) for index, package in enumerate(self._packages)}
        found = tuple(index for index, place in own.items() if place == folder)
        if found:
            return found[:1]
        members = tuple(index for index, place in own.items() if place is not None)
        if folder == "." and members and self._project.at("project") is None:
            return members
        name = self._project.at("project", "name") or member.name
        raise refused(
            self._project.path,
            self._project.line("project", "name"),
            f"{self.path} does not contain the project {name}",
            f"run: uv lock --project {member}",
            "the lock belongs to another project, or is older than this one",
        )

    def _check_chosen(self) -> None:
        for kind, table, names in (
            ("extra", "optional-dependencies", self._chosen.extras),
            ("group", "dev-dependencies", self._chosen.groups),
        ):
            there = {name for root in self.roots for name in _table(self._packages[root], table)}
            for name in names:
                if name not in there:
                    raise UsageError(
                        f"{self._project.path} has no {kind} {name!r}",
                        why=f"{self.path.name} has {', '.join(sorted(there)) or 'none'}",
                        fix=f"correct --{kind}, or add it to pyproject.toml and run: uv lock",
                    )

    def _refuse_logins(self) -> None:
        """Refuse an index with a login in `pyproject.toml`. uv leaves the login out of the lock, but needs it."""
        indexes = self._project.at("tool", "uv", "index")
        for index in indexes if isinstance(indexes, list) else ():
            address = index.get("url") if isinstance(index, dict) else None
            if isinstance(address, str) and has_login(address):
                at = self._project.text.find(address)
                name = index.get("name") or "without a name"
                self._address(
                    f"the index {name}", address, self._project.text.count("\n", 0, at) + 1, self._project.path
                )

    def _active(self) -> frozenset[str]:
        found = set()
        for root in self.roots:
            name = normalized(self._packages[root]["name"])
            found |= {f"extra-{len(name)}-{name}-{normalized(extra)}" for extra in self._chosen.extras}
            found |= {f"group-{len(name)}-{name}-{normalized(group)}" for group in self._chosen.groups}
        return frozenset(found)

    def _holds(self, marker: object, environment: Mapping[str, str], active: frozenset[str]) -> bool:
        def constant(match: re.Match[str]) -> str:
            return "os_name == 'posix'" if (match[2] in active) == (match[1] == "==") else "os_name != 'posix'"

        try:
            return isinstance(marker, str) and holds(_EXTRA.sub(constant, marker), environment)
        except ValueError as error:
            raise self._damaged(-1, f"{marker!a} is no marker") from error

    def _entries(self, entries: object) -> Iterator[dict[str, Any]]:
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                yield entry

    def _names(self, values: object) -> Iterable[str]:
        return [value for value in values if isinstance(value, str)] if isinstance(values, (list, tuple)) else ()

    def _resolved(self, entry: Mapping[str, Any], environment: Mapping[str, str], active: frozenset[str]) -> int:
        """Return the index of the package that a dependency means on this platform."""
        found = [
            index
            for index in self._by_name.get(normalized(entry["name"]), ())
            if all(entry.get(key) in (None, self._packages[index].get(key)) for key in ("version", "source"))
        ]
        if len(found) > 1:
            here = [
                index
                for index in found
                if any(
                    self._holds(marker, environment, active)
                    for marker in self._names(self._packages[index].get("resolution-markers", ()))
                )
            ]
            found = here or found
        if not found:
            raise self._damaged(-1, f"{entry['name']!a} is needed, but not among the packages")
        return found[0]

    def _damaged(self, index: int, why: str) -> ProblemError:
        return refused(self.path, self.line_of(index), f"the lock is damaged: {why}", "run: uv lock")

    def _own(self, package: Mapping[str, Any]) -> str | None:
        source = package.get("source")
        for kind in _OWN:
            place = source.get(kind) if isinstance(source, dict) else None
            if isinstance(place, str):
                return posixpath.normpath(place)
        return None

    def _package(self, index: int) -> Package:
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def _make(self, index: int) -> Package:
        package = self._packages[index]
        name, version, line = package["name"], package.get("version", ""), self.line_of(index)
        if (own := self._own(package)) is not None:
            if own.startswith(("../", "/")) or own == "..":
                raise refused(
                    self.path,
                    line,
                    f"{name} is the folder {own}, outside of the project, whose content is not locked",
                    "make it a member of the project's workspace, or depend on a git commit of it; then run: uv lock",
                )
            return Package(name, str(version), own=own, line=line)
        if not isinstance(version, str) or VERSION.fullmatch(version) is None:
            raise self._damaged(index, f"{name} has no version")
        source = _table(package, "source")
        wheels = tuple(self._file(index, item) for item in self._entries_of_files(package.get("wheels")))
        sdist = self._file(index, package["sdist"]) if isinstance(package.get("sdist"), dict) else None
        direct, registry = "", str(source.get("registry", ""))
        if "git" in source:
            direct = self._git(name, str(source["git"]), line)
        elif "url" in source:
            direct = self._address(name, str(source["url"]), line)
        elif "path" in source:
            return Package(name, version, wheels=self._local(index, str(source["path"])), line=line)
        elif registry:
            self._address(name, registry, line)
        else:
            raise self._damaged(index, f"{name} comes from an unknown kind of source")
        return Package(name, version, registry, wheels, sdist, direct, None, line)

    def _entries_of_files(self, value: object) -> Sequence[dict[str, Any]]:
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()

    def _file(self, index: int, item: Mapping[str, Any]) -> File:
        address = str(item.get("url") or item.get("path") or item.get("filename") or "")
        digest, size = item.get("hash", ""), item.get("size", 0)
        if digest and (not isinstance(digest, str) or HASH.fullmatch(digest) is None):
            raise self._damaged(index, f"{digest!a} is no hash")
        return File(file_name(address), digest, size if isinstance(size, int) else 0)

    def _local(self, index: int, place: str) -> tuple[File, ...]:
        """Return the wheel or archive in the project that a package is."""
        package = self._packages[index]
        items = [*self._entries_of_files(package.get("wheels")), package.get("sdist", {})]
        digest = next((item["hash"] for item in items if isinstance(item, dict) and "hash" in item), "")
        inside = posixpath.normpath(place)
        if not self._is_inside(inside) or HASH.fullmatch(str(digest)) is None:
            raise refused(
                self.path,
                self.line_of(index),
                f"{package['name']} is the file {place[:100]!r}, which is outside of the project or has no hash",
                "put the file into the project's folder, then run: uv lock",
            )
        return (File(posixpath.basename(inside), digest, path=inside),)

    def _is_inside(self, place: str) -> bool:
        """Return whether a path has a plain name at its end, and leads to no file outside of the lock's folder."""
        if place.startswith(("../", "/")) or _FILE.fullmatch(posixpath.basename(place)) is None:
            return False
        try:
            return (self.path.parent / place).resolve().is_relative_to(self.path.parent.resolve())
        except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a link to itself
            return False

    def _address(self, name: str, address: str, line: int, path: Path | None = None) -> str:
        if has_login(address):
            what = "has a login in its address" if path else "comes from an index whose address holds a login"
            raise refused(
                path or self.path,
                line,
                f"{name} {what}",
                "name the index without it; on the build machine, set PIP_INDEX_URL to a mirror that needs none",
                "builds and images must not see logins",
            )
        if not is_web_address(address):
            raise refused(
                self.path,
                line,
                f"{name} comes from {address[:100]!r}, which builds cannot reach",
                "use an index on the web in pyproject.toml, then run: uv lock",
            )
        return address.rstrip("/") if not address.endswith((".whl", ".gz", ".zip")) else address

    def _git(self, name: str, address: str, line: int) -> str:
        """Return the requirement's URL for a git source (``https://HOST/REPO?rev=…&subdirectory=…#COMMIT``)."""
        repository, _, rest = address.partition("?")
        repository, _, commit = repository.partition("#") if not rest else (repository, "", rest.rpartition("#")[2])
        return git_url(
            self.path, line, name, repository, commit, _query(rest.partition("#")[0]).get("subdirectory", "")
        )


def git_url(path: Path, line: int, name: str, repository: str, commit: str, below: str = "") -> str:  # noqa: PLR0917
    """Return the requirement's URL of a commit in a git repository. Raises ProblemError if builds cannot fetch it."""
    if _SCP.match(repository) or has_login(repository) or not is_web_address(repository):
        raise refused(
            path,
            line,
            f"{name} is in a git repository that needs a login or a key",
            "use the https:// address of a public repository, without a login",
            "builds and images must not see logins",
        )
    if not re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", commit):
        raise refused(path, line, f"{name} is in a git repository, at no fixed commit", "name the commit: …@0123…abcd")
    if below and not re.fullmatch(r"[A-Za-z0-9._/-]+", below):
        raise refused(path, line, f"{below[:80]!r} is no folder that a URL can name", "rename the folder")
    return f"git+{repository}@{commit}" + (f"#subdirectory={below}" if below else "")


def _query(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {key: unquote(value) for key, _, value in pairs}


def _table(package: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = package.get(key)
    return found if isinstance(found, dict) else {}

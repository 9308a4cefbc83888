"""Read `pylock.toml`, the lock file that tools share.

Specification: https://packaging.python.org/en/latest/specifications/pylock-toml/ (version 1.0)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from factory.errors import UsageError
from factory.recipes.model import ProblemError
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
from factory.recipes.projects.uvlock import Chosen, git_url

_CHOSEN = re.compile(r"""["']([^"']+)["'] (not in|in) (extras|dependency_groups)""")


class PyLock:
    """A `pylock.toml`."""

    def __init__(self, path: Path, chosen: Chosen) -> None:
        """Read it. Raises ProblemError and UsageError."""
        self._toml = Toml(path)
        self.path = path
        version = self._toml.at("lock-version")
        if not isinstance(version, str) or version.partition(".")[0] != "1":
            message = f"lock-version is {version!a}, not 1.0"
            raise refused(path, self._toml.line("lock-version"), message, "lock the project with a current tool")
        packages = self._toml.at("packages") or []
        if not isinstance(packages, list) or not all(isinstance(package, dict) for package in packages):
            raise refused(
                path, self._toml.line("packages"), "the list of packages is damaged", "lock the project again"
            )
        self._packages: list[dict[str, Any]] = packages
        groups = (*self._toml.texts("default-groups"), *chosen.groups)
        self._chosen = {
            "extras": set(map(normalized, chosen.extras)),
            "dependency_groups": set(map(normalized, groups)),
        }
        for kind, key, names in (("extra", "extras", chosen.extras), ("group", "dependency-groups", chosen.groups)):
            there = self._toml.texts(key)
            if wrong := [name for name in names if normalized(name) not in map(normalized, there)]:
                raise UsageError(
                    f"{path} has no {kind} {wrong[0]!r}",
                    why=f"it has {', '.join(there) or 'none'}",
                    fix=f"correct --{kind}, or lock the project again with it",
                )

    @cached_property
    def requires_python(self) -> RequiresPython:
        """The versions of Python that the lock is for."""
        text = self._toml.at("requires-python")
        return requires_python(text if isinstance(text, str) else "", self.path, self._toml.line("requires-python"))

    @cached_property
    def _lines(self) -> list[int]:
        lines = enumerate(self._toml.text.split("\n"), 1)
        return [number + 1 for number, line in lines if line.startswith("[[packages]]")]

    def needed(self, target: Target) -> tuple[Package, ...]:
        """Return the packages that a platform needs, sorted by name. Raises ProblemError."""
        environment = target.environment()
        found = []
        for index, package in enumerate(self._packages):
            if self._holds(index, package.get("marker", ""), environment):
                found.append(self._package(index, package))
        return tuple(sorted(found, key=lambda package: (package.name, package.version)))

    def _holds(self, index: int, marker: object, environment: Mapping[str, str]) -> bool:
        def constant(match: re.Match[str]) -> str:
            there = normalized(match[1]) in self._chosen[match[3]]
            return "os_name == 'posix'" if there == (match[2] == "in") else "os_name != 'posix'"

        try:
            return isinstance(marker, str) and holds(_CHOSEN.sub(constant, marker), environment)
        except ValueError as error:
            raise self._refused(index, f"{marker!a} is no marker", "lock the project again") from error

    def _refused(self, index: int, message: str, remedy: str) -> ProblemError:
        line = self._lines[index] if index < len(self._lines) else 0
        return refused(self.path, line, message, remedy)

    def _package(self, index: int, package: Mapping[str, Any]) -> Package:
        name, version = package.get("name"), package.get("version", "")
        line = self._lines[index] if index < len(self._lines) else 0
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise self._refused(index, "a package has no valid name", "lock the project again")
        if not isinstance(version, str) or (version and VERSION.fullmatch(version) is None):
            raise self._refused(index, f"{name} has no valid version", "lock the project again")
        if isinstance(package.get("directory"), dict):
            place = posixpath.normpath(str(package["directory"].get("path", ".")))
            if place.startswith(("..", "/")):
                remedy = "move it into the project, or depend on a git commit of it; then lock again"
                raise self._refused(index, f"{name} is the folder {place}, outside of the project", remedy)
            return Package(name, version, own=place, line=line)
        listed = package.get("wheels")
        listed = listed if isinstance(listed, list) else ()
        wheels = tuple(self._file(index, item) for item in listed if isinstance(item, dict))
        sdist = self._file(index, package["sdist"]) if isinstance(package.get("sdist"), dict) else None
        registry = str(package.get("index", ""))
        direct = ""
        if isinstance(package.get("vcs"), dict):
            vcs = {key: str(value) for key, value in package["vcs"].items()}
            if vcs.get("type") != "git":
                raise self._refused(index, f"{name} is in no git repository", "use a release, then lock again")
            below = vcs.get("subdirectory", "")
            direct = git_url(self.path, line, name, vcs.get("url", ""), vcs.get("commit-id", ""), below)
        elif isinstance(package.get("archive"), dict):
            file = self._file(index, package["archive"])
            direct, wheels = str(package["archive"].get("url", "")), (file,)
        for address in filter(None, (registry, direct.removeprefix("git+"))):
            if has_login(address) or not is_web_address(address):
                what = "holds a login" if has_login(address) else "cannot be reached by builds"
                remedy = "lock it from an index without a login; on the build machine, set PIP_INDEX_URL to a mirror"
                raise self._refused(index, f"the address of {name} {what}", remedy)
        return Package(name, version, registry.rstrip("/"), wheels, sdist, direct, None, line)

    def _file(self, index: int, item: Mapping[str, Any]) -> File:
        address = str(item.get("name") or item.get("url") or item.get("path") or "")
        hashes = item.get("hashes")
        digest = ""
        for kind in ("sha256", "sha384", "sha512"):
            if not digest and isinstance(hashes, dict) and kind in hashes:
                digest = f"{kind}:{hashes[kind]}"
        if HASH.fullmatch(digest) is None:
            raise self._refused(index, f"{address[-60:]!a} has no usable hash", "lock the project again")
        size = item.get("size", 0)
        return File(file_name(address), digest, size if isinstance(size, int) else 0)

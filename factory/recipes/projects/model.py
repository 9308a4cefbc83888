"""What a project's lock says, whatever its format, and what an image for it must install."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from factory.errors import NotFound
from factory.recipes.model import Place, Problem, ProblemError

if TYPE_CHECKING:
    from packaging.markers import Marker
    from packaging.requirements import Requirement

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
LIMIT = 64 * 1024 * 1024  # bytes of a lock file; the largest in public have some 10 MB
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?", re.ASCII)
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,198}", re.ASCII)
HASH = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[^\s\"'\\<>^`{|}]*)?", re.ASCII)
_LOGIN = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*@")
_PYTHON = re.compile(r"3\.([0-9]{1,2})(?:\.[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A platform: an architecture by its OCI name, and a version of CPython, whose patch release may be unknown."""

    arch: str
    python: tuple[int, int]
    full: str = ""

    @property
    def name(self) -> str:
        """The version of Python, such as ``3.11``."""
        return ".".join(map(str, self.python))

    def environment(self) -> dict[str, str]:
        """Return the values of environment markers. The newest patch release is assumed if it is unknown."""
        return {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": MACHINES[self.arch],
            "platform_release": "",
            "platform_version": "",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
            "implementation_version": self.full or f"{self.name}.99",
            "python_version": self.name,
            "python_full_version": self.full or f"{self.name}.99",
            "extra": "",
        }


@dataclass(frozen=True)
class File:
    """A wheel or source archive of a lock. size: bytes, 0 if unknown; path: of a file in the project, relative."""

    name: str
    digest: str
    size: int = 0
    path: str = ""


@dataclass(frozen=True)
class Package:
    """A locked package. index: the URL of its index. direct: the URL of a package that comes from no index.

    own: the folder of code of the project itself, relative to the lock file; it is not installed. line: in the lock.
    """

    name: str
    version: str
    index: str = ""
    wheels: tuple[File, ...] = ()
    sdist: File | None = None
    direct: str = ""
    own: str | None = None
    line: int = 0
    asked: bool = False  # by the project itself, not by another package


@dataclass(frozen=True)
class OwnCode:
    """A folder with code of the project, relative to the project. source: where its packages are, below it.

    installable: whether it says how it is built; else it is only put where Python finds it.
    """

    folder: str
    source: str
    installable: bool = False


@dataclass(frozen=True)
class Needs:
    """What an image must install.

    requirements: the lines of a requirements file. direct: lines for packages that no hash can pin, such as commits of
    git repositories. complete: requirements has all packages, so that nothing must be resolved. hashed: each has
    hashes. distributions: name, version ('' if unknown), and whether the project itself asks for it. source_only:
    names of packages that must be compiled or at least built. size: bytes of the archives, 0 if unknown. files: wheels
    in the project to copy, by the name they get. indexes: other indexes than PyPI, as the lock names them. unlocked:
    names of packages that may be any version.
    """

    requirements: tuple[str, ...]
    direct: tuple[str, ...] = ()
    complete: bool = False
    hashed: bool = False
    distributions: tuple[tuple[str, str, bool], ...] = ()
    source_only: tuple[str, ...] = ()
    size: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)
    indexes: tuple[str, ...] = ()
    own: tuple[OwnCode, ...] = ()
    notes: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    unlocked: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The normalized names of all packages."""
        return frozenset(normalized(name) for name, _, _ in self.distributions)


def refused(path: Path, line: int, message: str, remedy: str, why: str = "") -> ProblemError:
    """Return the error for a problem in a project's file."""
    return ProblemError(Problem(Place(path, line), message, remedy), why=why)


def normalized(name: str) -> str:
    """Return the normalized form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def has_login(address: str) -> bool:
    """Return whether a URL contains a user name or password."""
    return _LOGIN.match(address) is not None


def is_web_address(address: str) -> bool:
    """Return whether a text is an http(s) URL without characters that files and shells take for something else."""
    return _URL.fullmatch(address) is not None


def file_name(address: str) -> str:
    """Return the name of the file at the end of a URL or path."""
    return unquote(posixpath.basename(re.split(r"[?#]", address, maxsplit=1)[0]))


def host_of(address: str) -> str:
    """Return the host of a web address, '' for anything else."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # brackets around what is no IPv6 address
        return ""


def python_version(text: str) -> tuple[int, int] | None:
    """Parse ``3.11`` or ``3.11.4``; None for anything else."""
    match = _PYTHON.fullmatch(text.strip())
    return (3, int(match[1])) if match else None


def holds(marker: str, environment: Mapping[str, str]) -> bool:
    """Evaluate an environment marker; '' is true. Raises ValueError if it is not one."""
    try:
        return not marker or _marker(marker).evaluate(dict(environment))
    except RecursionError as error:
        raise ValueError("it has too many parentheses") from error


@lru_cache(maxsize=8192)
def _marker(text: str) -> Marker:
    from packaging.markers import Marker  # noqa: PLC0415 - only `new --project` needs it

    try:
        return Marker(text)
    except RecursionError as error:
        raise ValueError("it has too many parentheses") from error


def requirement_of(text: str) -> Requirement:
    """Parse a requirement (PEP 508). Raises packaging's InvalidRequirement."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - as above

    try:
        return Requirement(text)
    except RecursionError as error:
        raise InvalidRequirement("its marker has too many parentheses") from error


def require_packages() -> None:
    """Raise NotFound unless the packages that read projects are installed."""
    try:
        import packaging  # noqa: F401, PLC0415
        import yaml  # noqa: F401, PLC0415
    except ImportError as error:
        raise NotFound(
            "projects cannot be read here",
            why=str(error),
            fix="install the factory's packages: pip install '.[factory]'",
        ) from error


def requires_python(text: str, path: Path, line: int = 0) -> RequiresPython:
    """Parse `requires-python`. Raises RecipeError with the line."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise refused(
            path, line, f"requires-python is {text[:80]!r}, which is no version specifier", 'write it as ">=3.11"'
        ) from error
    return RequiresPython(text, path, line)


@dataclass(frozen=True)
class RequiresPython:
    """The versions of Python that a project allows, and where it says so."""

    text: str
    path: Path
    line: int = 0

    def allows(self, target: Target) -> bool:
        """Return whether it allows this version, in its patch release if that is known."""
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415

        return (
            SpecifierSet(self.text).contains(target.full or f"{target.name}.99", prereleases=True)
            if self.text
            else True
        )

"""From the packages of a lock to what an image installs: requirements with hashes, for one version of Python."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from factory.recipes.projects.model import (
    MACHINES,
    Needs,
    OwnCode,
    Package,
    RequiresPython,
    Target,
    normalized,
    refused,
)
from factory.recipes.projects.wheels import wheels_for

# The Python Package Index, which needs no mention: the build machine knows it, or an index in its place.
USUAL_INDEX = re.compile(r"https://pypi\.(?:python\.)?org/simple/?")
WHEELS = "wheels"  # the folder of wheels that a recipe brings itself


class Lock(Protocol):
    """A lock with all packages of a project."""

    path: Path

    @property
    def requires_python(self) -> RequiresPython:
        """The versions of Python that it is for."""

    def needed(self, target: Target) -> tuple[Package, ...]:
        """Return the packages that a platform needs. Raises ProblemError."""


def impossible(packages: Iterable[Package], target: Target) -> tuple[Package, ...]:
    """Return the packages that the target can neither take as a wheel nor build."""
    return tuple(
        package
        for package in packages
        if package.own is None
        and not package.direct
        and not package.sdist
        and not wheels_for(package, target)
        and not any(wheel.path and not wheel.name.endswith(".whl") for wheel in package.wheels)
    )


def from_source(packages: Iterable[Package], target: Target) -> tuple[Package, ...]:
    """Return the packages that the target has to build."""
    return tuple(
        package
        for package in packages
        if package.own is None and not wheels_for(package, target) and not package.direct.endswith(".whl")
    )


def require_possible(lock: Lock, packages: Sequence[Package], target: Target) -> None:
    """Raise ProblemError for a package that has neither a wheel for the target nor a source archive."""
    for package in impossible(packages, target):
        tags = sorted({"-".join(wheel.name.removesuffix(".whl").split("-")[-3:]) for wheel in package.wheels})
        some = ", ".join(tags[:3]) + (" …" if len(tags) > 3 else "")  # noqa: PLR2004
        raise refused(
            lock.path,
            package.line,
            f"{package.name} {package.version} has no wheel for Python {target.name} on {target.arch}, and no source",
            "choose another Python with --python X.Y, or lock another release of it",
            f"there are wheels for {some}" if some else "the lock names no wheel of it",
        )


def from_lock(lock: Lock, target: Target, own: Sequence[OwnCode] = (), notes: Sequence[str] = ()) -> Needs:
    """Return what an image needs on a target, and, where it is possible, on the other architecture too.

    Raises ProblemError for a package that the target cannot have.
    """
    packages = lock.needed(target)
    require_possible(lock, packages, target)
    sets: dict[str, tuple[Package, ...]] = {target.arch: packages}
    for arch in MACHINES:
        other = Target(arch, target.python, target.full)
        if arch != target.arch and not impossible(there := lock.needed(other), other):
            sets[arch] = there
    lines, direct, files = _lines(lock, sets, target)
    source = from_source(packages, target)
    return Needs(
        requirements=lines,
        direct=direct,
        complete=True,
        hashed=True,
        distributions=tuple(
            sorted({(package.name, package.version, package.asked) for package in packages if package.own is None})
        ),
        source_only=tuple(package.name for package in source),
        size=sum(_size(package, target) for package in packages),
        files=files,
        indexes=_indexes(packages),
        own=tuple(own),
        notes=(*notes, *([] if len(sets) > 1 else [f"only {target.arch} can have all packages of the lock"])),
    )


def _indexes(packages: Sequence[Package]) -> tuple[str, ...]:
    """Return the indexes besides the one that most packages come from, in whose place is the build machine's own."""
    named = Counter(package.index for package in packages if package.index)
    (main, _), *_ = named.most_common(1) or [("", 0)]
    return tuple(sorted(index for index in named if index != main and not USUAL_INDEX.fullmatch(index)))


def _size(package: Package, target: Target) -> int:
    wheels = wheels_for(package, target)
    if wheels:
        return max(wheel.size for wheel in wheels)
    return package.sdist.size if package.sdist else 0


def _lines(
    lock: Lock, sets: Mapping[str, tuple[Package, ...]], target: Target
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Path]]:
    """Return the lines with hashes, those of direct references without, and the files to copy."""
    arches: dict[Package, list[str]] = {}
    for arch, packages in sets.items():
        for package in packages:
            if package.own is None:
                arches.setdefault(package, []).append(arch)
    hashed, direct = list[str](), list[str]()
    files: dict[str, Path] = {}
    for package, there in sorted(arches.items(), key=lambda item: (normalized(item[0].name), item[0].version)):
        only = f" ; platform_machine == '{MACHINES[there[0]]}'" if len(there) < len(sets) else ""
        local = next((wheel for wheel in package.wheels if wheel.path), None)
        digests = sorted({digest for arch in there for digest in _digests(package, Target(arch, target.python))})
        if local is not None:
            files[local.name] = lock.path.parent / local.path
            what = f"{package.name} @ file:///opt/project/{posixpath.join(WHEELS, local.name)}{only}"
            hashed.append(_hashed(what, [local.digest]))
        elif package.direct.startswith("git+") or (package.direct and not digests):
            direct.append(f"{package.name} @ {package.direct}{only}")
        elif package.direct:
            hashed.append(_hashed(f"{package.name} @ {package.direct}{only}", digests))
        elif digests:
            hashed.append(_hashed(f"{package.name}=={package.version}{only}", digests))
        else:
            raise refused(
                lock.path,
                package.line,
                f"{package.name} {package.version} has no hash in the lock",
                "lock it from an index that has hashes, then run singfactory new again",
            )
    return tuple(hashed), tuple(direct), files


def _digests(package: Package, target: Target) -> list[str]:
    """Return the hashes of the files that the target may install: those of its wheels, else of the source archive."""
    if package.direct:
        every = [*package.wheels, *([package.sdist] if package.sdist else [])]
        return [file.digest for file in every if file.digest]
    wheels = [wheel.digest for wheel in wheels_for(package, target) if wheel.digest]
    return wheels or ([package.sdist.digest] if package.sdist and package.sdist.digest else [])


def _hashed(what: str, digests: Iterable[str]) -> str:
    return " \\\n".join((what, *(f"    --hash={digest}" for digest in digests)))

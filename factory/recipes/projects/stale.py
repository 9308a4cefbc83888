"""Whether `uv.lock` is older than `pyproject.toml`: uv writes what it was asked for into the lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.recipes.projects.documents import Toml
from factory.recipes.projects.model import RequiresPython, Target, normalized, refused, requirement_of, requires_python

_EXTRA = re.compile(r"extra == '([^']*)'")
_Wanted = tuple[str, str, frozenset[str], str]
"""The extra or group, the name, the extras of the dependency, and the specifier ('*' if a source replaces it)."""


def require_current(project: Toml, entries: Sequence[Mapping[str, Any]], lock: Path) -> None:
    """Raise ProblemError if `pyproject.toml` asks for something that the lock was not made for.

    entries: the project's own entry in the lock. Dependencies that a build backend computes cannot be compared.
    """
    if project.at("project") is None or not entries:
        return
    metadata = entries[0].get("metadata")
    if not isinstance(metadata, dict):
        return
    sources = {normalized(name) for name in _table(project.at("tool", "uv", "sources"))}
    known = set(_locked(metadata.get("requires-dist")))
    for group, items in _table(metadata.get("requires-dev")).items():
        known |= {(f"group {normalized(group)}", *item[1:]) for item in _locked(items)}
    loose = {item[:3] for item in known}
    dynamic = project.texts("project", "dynamic")
    asked = list(_asked(project, dynamic))
    for wanted, text, place in asked:
        if wanted not in known and not (wanted[1] in sources and wanted[:3] in loose):
            raise refused(
                project.path,
                _line_of(project, text, place),
                f"{lock.name} was made before {text[:80]!r} was written here",
                f"run: uv lock --project {lock.parent}",
            )
    if "dependencies" not in dynamic:
        still = {wanted[:3] for wanted, _, _ in asked}
        gone = sorted(item[1] for item in loose if item[0] == "" and item not in still)
        if gone:
            raise refused(
                project.path,
                project.line("project", "dependencies"),
                f"{lock.name} was made when {gone[0][:80]} was still among the dependencies",
                f"run: uv lock --project {lock.parent}",
            )


def require_same_pythons(project: Toml, locked: RequiresPython) -> None:
    """Raise ProblemError if the lock is for a version of Python that `pyproject.toml` does not allow."""
    text = project.at("project", "requires-python")
    if not isinstance(text, str):
        return
    line = project.line("project", "requires-python")
    wanted = requires_python(text, project.path, line)
    for minor in range(8, 16):
        target = Target("amd64", (3, minor))
        if locked.allows(target) and not wanted.allows(target):
            raise refused(
                project.path,
                line,
                f"{locked.path.name} was made for Python {locked.text}, not for {text}",
                f"run: uv lock --project {locked.path.parent}",
            )


def _locked(entries: object) -> Iterator[_Wanted]:
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        marker = str(entry.get("marker", ""))
        extra = _EXTRA.search(marker)
        extras = frozenset(normalized(str(name)) for name in _list(entry.get("extras")))
        yield (
            normalized(extra[1]) if extra else "",
            normalized(str(entry.get("name", ""))),
            extras,
            _specifier(str(entry.get("specifier", ""))),
        )


def _asked(project: Toml, dynamic: Iterable[str]) -> Iterator[tuple[_Wanted, str, tuple[str, ...]]]:
    """Yield each requirement of `pyproject.toml`, its text, and the keys of its list."""
    if "dependencies" not in dynamic:
        for text in project.texts("project", "dependencies"):
            yield _read(project, text, "", "project", "dependencies")
    if "optional-dependencies" not in dynamic:
        for extra in _table(project.at("project", "optional-dependencies")):
            for text in project.texts("project", "optional-dependencies", extra):
                yield _read(project, text, normalized(extra), "project", "optional-dependencies", extra)
    for group, items in _table(project.at("dependency-groups")).items():
        for text in _list(items):
            if isinstance(text, str):  # else a group that it includes
                yield _read(project, text, f"group {normalized(group)}", "dependency-groups", group)


def _read(project: Toml, text: str, group: str, *place: str) -> tuple[_Wanted, str, tuple[str, ...]]:
    from packaging.requirements import InvalidRequirement  # noqa: PLC0415

    try:
        requirement = requirement_of(text)
    except InvalidRequirement as error:
        line = _line_of(project, text, place)
        raise refused(project.path, line, f"{text[:80]!r} is no requirement", "write it as NAME>=VERSION") from error
    extras = frozenset(map(normalized, requirement.extras))
    specifier = "" if requirement.url else _specifier(str(requirement.specifier))
    return (group, normalized(requirement.name), extras, specifier), text, place


def _line_of(project: Toml, text: str, place: tuple[str, ...]) -> int:
    """Return the line of a requirement in its list."""
    first = project.line(*place)
    for number, line in enumerate(project.text.splitlines()[first - 1 :], first):
        if text in line.replace('\\"', '"'):
            return number
    return first


def _table(value: Any) -> dict[str, Any]:  # noqa: ANN401 - TOML values are of any type
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - the same
    return value if isinstance(value, list) else []


def _specifier(text: str) -> str:
    return ",".join(sorted(part.strip().replace(" ", "") for part in text.split(",") if part.strip()))

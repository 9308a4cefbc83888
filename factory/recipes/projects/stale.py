"""Whether `uv.lock` is older than `pyproject.toml`: uv writes what it was asked for into the lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.recipes.projects.documents import Toml
from factory.recipes.projects.model import normalized, refused

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
    sources = {normalized(name) for name in project.at("tool", "uv", "sources") or {}}
    known = set(_locked(metadata.get("requires-dist")))
    for group, items in (metadata.get("requires-dev") or {}).items():
        known |= {(f"group {normalized(group)}", *item[1:]) for item in _locked(items)}
    loose = {item[:3] for item in known}
    dynamic = project.texts("project", "dynamic")
    for wanted, line, text in _asked(project, dynamic):
        if wanted not in known and not (wanted[1] in sources and wanted[:3] in loose):
            raise refused(
                project.path,
                line,
                f"{lock.name} was made before {text!r} was written here",
                f"run: uv lock --project {lock.parent}",
            )
    if "dependencies" not in dynamic:
        asked = {wanted[:3] for wanted, _, _ in _asked(project, dynamic)}
        gone = sorted(item[1] for item in loose if item[0] == "" and item not in asked)
        if gone:
            raise refused(
                project.path,
                project.line("project", "dependencies"),
                f"{lock.name} was made when {gone[0]} was still among the dependencies",
                f"run: uv lock --project {lock.parent}",
            )


def _locked(entries: object) -> Iterator[_Wanted]:
    for entry in entries if isinstance(entries, list) else ():
        marker = str(entry.get("marker", ""))
        extra = _EXTRA.search(marker)
        extras = frozenset(normalized(str(name)) for name in entry.get("extras", ()))
        yield (
            normalized(extra[1]) if extra else "",
            normalized(str(entry.get("name", ""))),
            extras,
            _specifier(str(entry.get("specifier", ""))),
        )


def _asked(project: Toml, dynamic: Iterable[str]) -> Iterator[tuple[_Wanted, int, str]]:
    """Yield each requirement of `pyproject.toml`, its line and its text."""
    if "dependencies" not in dynamic:
        for text in project.texts("project", "dependencies"):
            yield _read(project, text, "", "project", "dependencies")
    if "optional-dependencies" not in dynamic:
        for extra in project.at("project", "optional-dependencies") or {}:
            for text in project.texts("project", "optional-dependencies", extra):
                yield _read(project, text, normalized(extra), "project", "optional-dependencies", extra)
    for group, items in (project.at("dependency-groups") or {}).items():
        for text in items if isinstance(items, list) else ():
            if isinstance(text, str):  # else a group that it includes
                yield _read(project, text, f"group {normalized(group)}", "dependency-groups", group)


def _read(project: Toml, text: str, group: str, *place: str) -> tuple[_Wanted, int, str]:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    line = _line_of(project, text, *place)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise refused(project.path, line, f"{text[:80]!r} is no requirement", "write it as NAME>=VERSION") from error
    extras = frozenset(map(normalized, requirement.extras))
    specifier = "" if requirement.url else _specifier(str(requirement.specifier))
    return (group, normalized(requirement.name), extras, specifier), line, text


def _line_of(project: Toml, text: str, *place: str) -> int:
    """Return the line of a requirement in its list."""
    first = project.line(*place)
    for number, line in enumerate(project.text.splitlines()[first - 1 :], first):
        if text in line.replace('\\"', '"'):
            return number
    return first


def _specifier(text: str) -> str:
    return ",".join(sorted(part.strip().replace(" ", "") for part in text.split(",") if part.strip()))

"""Read `[project]` of `recipe.toml`: which project's packages an image has. `singfactory new --project` writes it."""

from __future__ import annotations

import re
from collections.abc import Callable

from factory.errors import UsageError
from factory.recipes.definition.templates import shown
from factory.recipes.model import ProjectSpec
from factory.recipes.toml.table import Table

_SOURCE = re.compile(r"(?:https?://[^\s<>\"'@?#]+|[^\s/<>\"'@?#][^/<>\"'@?#]{0,198})")
_PATH = re.compile(r"(?!\.\./)[^\s/\"'][^\"']{0,998}")
_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})?", re.ASCII)
_PYTHON = re.compile(r"3\.[0-9]{1,2}", re.ASCII)
_CHOICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)


def project_of(table: Table) -> ProjectSpec:
    """Read the table; wrong values become problems."""
    spec = ProjectSpec(
        source=table.checked(
            "source", _matches(_SOURCE, "write https://HOST/PATH without a login, or a folder's name")
        ),
        path=table.checked("path", _matches(_PATH, "write a folder in the repository")),
        commit=table.checked("commit", _matches(_COMMIT, "write all 40 digits of the commit")),
        dirty=table.flag("dirty"),
        lock=table.checked("lock", _matches(_PATH, "write the name of the lock file")),
        python=table.checked("python", _matches(_PYTHON, 'write it as python = "3.12"')),
        extras=_choices(table, "extras"),
        groups=_choices(table, "groups"),
        include_code=table.flag("include_code"),
    )
    table.refuse_unknown()
    return spec


def _matches(pattern: re.Pattern[str], remedy: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if pattern.fullmatch(text) is None:
            raise UsageError(f"{shown(text)} is not valid here", fix=remedy)

    return check


def _choices(table: Table, key: str) -> tuple[str, ...]:
    values = table.texts(key)
    for value in values:
        if _CHOICE.fullmatch(value) is None:
            table.complain(key, f"{shown(value)} is no name of one of the {key}", "use the names in pyproject.toml")
    return values

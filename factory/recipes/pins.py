"""`base.lock`: the digest to which a recipe's base image is pinned."""

from __future__ import annotations

import json
import re
from pathlib import Path

from factory.errors import IntegrityFailure
from factory.io.files import atomic_write
from factory.oci.digest import Digest
from factory.recipes.model import BasePin, Problem, ProblemError, Recipe
from factory.recipes.toml.table import Report, Table

FILE = "base.lock"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_HEAD = "# Written by: singfactory update. A pull request moves the base; do not edit by hand.\n"
_REMEDY = "remove the file and run: singfactory update"


def read_pin(recipe: Recipe) -> BasePin | None:
    """Return the pin of the recipe's base; None if there is no `base.lock` or it pins another base (see is_stale).

    Raises ProblemError if the file is broken.
    """
    pin = _read(recipe)
    return pin if pin and pin.base == recipe.build.base else None


def is_stale(recipe: Recipe) -> bool:
    """Return whether there is a `base.lock` that pins another base than the recipe's. Raises ProblemError."""
    pin = _read(recipe)
    return pin is not None and pin.base != recipe.build.base


def write_pin(recipe: Recipe, pin: BasePin) -> Path:
    """Write `base.lock` and return its path. Raises IntegrityFailure for a bad digest, PlaceUnusable."""
    path = recipe.folder / FILE
    atomic_write(path, content(pin))
    return path


def content(pin: BasePin) -> str:
    """Return the content of `base.lock`. Raises IntegrityFailure for a bad digest."""
    values = {"base": pin.base, "digest": str(Digest.parse(pin.digest)), "resolved": pin.resolved}
    # A JSON string is a TOML basic string if DEL is escaped too.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return _HEAD + "".join(lines).replace("\x7f", "\\u007F")


def _read(recipe: Recipe) -> BasePin | None:
    path = recipe.folder / FILE
    if not path.exists() and not path.is_symlink():
        return None
    report = Report(path)
    table = Table(report, report.load() or {})
    pin = BasePin(base=table.text("base"), digest=table.text("digest"), resolved=table.text("resolved"))
    table.refuse_unknown()
    if not report.problems:
        _check(pin, table)
    if report.problems:
        first = report.problems[0]
        raise ProblemError(Problem(first.place, first.message, _REMEDY))
    return pin


def _check(pin: BasePin, table: Table) -> None:
    if not pin.base:
        table.complain("base", "base is missing", _REMEDY)
    if _TIME.fullmatch(pin.resolved) is None:
        table.complain("resolved", "resolved is not a time, such as 2024-05-01T12:00:00Z", _REMEDY)
    try:
        Digest.parse(pin.digest)
    except IntegrityFailure as error:
        table.complain("digest", str(error), _REMEDY)

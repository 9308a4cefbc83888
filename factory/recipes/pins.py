"""`base.lock`: the digests to which the images that a recipe is built from are pinned.

Since 2026 it has an `[[image]]` for each of them. The older form, the keys base, digest and resolved for the recipe's
one base, is still read, and `singfactory update` rewrites it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import IntegrityFailure, UsageError
from factory.io.files import atomic_write, remove_file
from factory.oci.digest import Digest
from factory.oci.names import docker_base, is_docker_base
from factory.recipes.model import BasePin, Problem, ProblemError, Recipe
from factory.recipes.toml.lines import nearest_line
from factory.recipes.toml.table import Report, Table

FILE = "base.lock"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_ARCH = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
_HEAD = "# Written by: singfactory update. A pull request moves the bases; do not edit by hand.\n"
_REMEDY = "remove the file and run: singfactory update"


@dataclass(frozen=True)
class Pins:
    """The content of `base.lock`. lines: the line of each pin."""

    pins: tuple[BasePin, ...] = ()
    lines: tuple[int, ...] = ()

    def of(self, image: str) -> BasePin | None:
        """Return the pin of a ``docker://`` image, however its name is spelled; None if it is not pinned."""
        wanted = docker_base(image)
        return next((pin for pin in self.pins if docker_base(pin.base) == wanted), None)

    def known(self, arch: str) -> dict[str, str]:
        """Return the digest of the image for an architecture by the digest that its tag named."""
        return {pin.digest: pin.platforms[arch] for pin in self.pins if arch in pin.platforms}


def read_pins(recipe: Recipe) -> Pins:
    """Return everything that `base.lock` pins; nothing if there is none. Raises ProblemError if the file is broken."""
    path = recipe.folder / FILE
    if not path.exists() and not path.is_symlink():
        return Pins()
    report = Report(path)
    pins = tuple(_read(report, Table(report, report.load() or {})))
    if report.problems:
        first = report.problems[0]
        raise ProblemError(Problem(first.place, first.message, _REMEDY))
    lines = tuple(nearest_line(report.lines, ("image", index)) for index in range(len(pins)))
    return Pins(pins, lines)


def read_pin(recipe: Recipe) -> BasePin | None:
    """Return the pin of the recipe's own base; None if it has none. Raises ProblemError if the file is broken."""
    pins = read_pins(recipe)
    return pins.of(recipe.build.base) if is_docker_base(recipe.build.base) else None


def write_pins(recipe: Recipe, pins: Sequence[BasePin]) -> Path:
    """Write `base.lock`, or remove it if nothing is pinned. Return its path.

    Raises IntegrityFailure for a bad digest, PlaceUnusable.
    """
    path = recipe.folder / FILE
    if pins:
        atomic_write(path, content(pins))
    else:
        remove_file(path)
    return path


def content(pins: Sequence[BasePin]) -> str:
    """Return the content of `base.lock`. Raises IntegrityFailure for a bad digest."""
    return "\n".join([_HEAD, *map(_entry, pins)])


def _entry(pin: BasePin) -> str:
    lines = ["[[image]]", _line("name", pin.base), _line("resolved", pin.resolved)]
    lines.append(_line("digest", str(Digest.parse(pin.digest))))
    if pin.platforms:
        lines.append("[image.platforms]")
        lines += [_line(arch, str(Digest.parse(digest))) for arch, digest in sorted(pin.platforms.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: str) -> str:
    # A JSON string is a TOML basic string if DEL is escaped too.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007F")


def _read(report: Report, top: Table) -> Iterator[BasePin]:
    if any(top.has(key) for key in ("base", "digest", "resolved")):
        yield _pin(report, top, "base")
    else:
        named: set[tuple[str, str, str]] = set()
        for table in top.tables("image"):
            pin = _pin(report, table, "name")
            if not report.problems and docker_base(pin.base) in named:
                table.complain("name", f"{pin.base} is pinned twice", _REMEDY)
            if not report.problems:
                named.add(docker_base(pin.base))
            yield pin
        if not named and not report.problems:
            top.complain("", "nothing is pinned", _REMEDY)
    top.refuse_unknown()


def _pin(report: Report, table: Table, name: str) -> BasePin:
    pin = BasePin(
        base=table.text(name),
        digest=table.text("digest"),
        resolved=table.text("resolved"),
        platforms=table.mapping("platforms", name=_ARCH, what="an architecture") if name == "name" else {},
    )
    if name == "name":
        table.refuse_unknown()
    if report.problems:
        return pin
    if wrong := _not_an_image(pin.base):
        table.complain(name, f"{name} is missing" if not pin.base else wrong, _REMEDY)
    if _TIME.fullmatch(pin.resolved) is None:
        table.complain("resolved", "resolved is not a time, such as 2024-05-01T12:00:00Z", _REMEDY)
    for key, digest in (("digest", pin.digest), *(("platforms", value) for value in pin.platforms.values())):
        if wrong := _not_a_digest(digest):
            table.complain(key, wrong, _REMEDY)
    return pin


def _not_a_digest(text: str) -> str:
    try:
        Digest.parse(text)
    except IntegrityFailure as error:
        return str(error)
    return ""


def _not_an_image(name: str) -> str:
    try:
        docker_base(name)
    except UsageError as error:
        return str(error)
    return "" if is_docker_base(name) else f"{name!a} does not begin with docker://"

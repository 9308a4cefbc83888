"""Options of commands: frozen dataclasses, made from argparse's namespace."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_KIND = "options_kind"  # in argparse's namespace: the dataclass of its values


@dataclass(frozen=True)
class CommonOptions:
    """Options that Context reads. None or empty: not given.

    names: recipes. runner, gpu: how builds and tests run. verify_bytes: which published images are read back.
    Commands without one of these options keep the default.
    """

    registry: str | None
    store: str | None
    tmpdir: str | None
    limit_rate: str | None
    json: bool
    verbose: bool
    quiet: bool
    names: Sequence[str]
    runner: str | None
    gpu: bool
    verify_bytes: str


# The values of options that a command does not have. No defaults: fields of subclasses follow, and have none.
NOT_GIVEN: Mapping[str, Any] = {
    "registry": None,
    "store": None,
    "tmpdir": None,
    "limit_rate": None,
    "json": False,
    "verbose": False,
    "quiet": False,
    "names": (),
    "runner": None,
    "gpu": False,
    "verify_bytes": "never",
}


def becomes(parser: argparse.ArgumentParser, kind: type[CommonOptions]) -> None:
    """Set the dataclass of a parser's options. Its fields have the options' names."""
    parser.set_defaults(**{_KIND: kind})


def typed(namespace: argparse.Namespace) -> CommonOptions:
    """Convert a namespace to its dataclass. Raises TypeError if the fields do not match the options."""
    given = {**NOT_GIVEN, **vars(namespace)}
    kind: type[CommonOptions] = given.pop(_KIND)
    return kind(**given)

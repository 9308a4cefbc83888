"""Options of commands: frozen dataclasses, made from argparse's namespace."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

_KIND = "options_kind"  # in argparse's namespace: the dataclass of its values


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that Context reads. None or empty: not given.

    names: recipes. runner, gpu: how builds and tests run. verify_bytes: which published images are read back.
    Commands without one of these options keep the default.
    """

    registry: str | None = None
    store: str | None = None
    tmpdir: str | None = None
    limit_rate: str | None = None
    json: bool = False
    verbose: bool = False
    quiet: bool = False
    names: Sequence[str] = ()
    runner: str | None = None
    gpu: bool = False
    verify_bytes: str = "never"


def becomes(parser: argparse.ArgumentParser, kind: type[CommonOptions]) -> None:
    """Set the dataclass of a parser's options. Its fields have the options' names."""
    parser.set_defaults(**{_KIND: kind})


def typed(namespace: argparse.Namespace) -> CommonOptions:
    """Convert a namespace to its dataclass. Raises TypeError if the fields do not match the options."""
    given = dict(vars(namespace))
    kind: type[CommonOptions] = given.pop(_KIND)
    return kind(**given)

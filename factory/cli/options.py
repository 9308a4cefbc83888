"""What the commands are given: a frozen dataclass each, made from what argparse has read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

_KIND = "options_kind"  # in argparse's namespace: which dataclass its values belong to


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What any command may be given, and the Context works with. None, or empty: not given.

    names: recipes. runner, gpu: how builds and tests run; verify_bytes: which images are read back; for commands that
    have these options.
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
    """Declare which dataclass the parser's values become; its fields are the parser's options by name."""
    parser.set_defaults(**{_KIND: kind})


def typed(namespace: argparse.Namespace) -> CommonOptions:
    """The dataclass of what a parser has read. Raises TypeError where its fields are not the parser's options."""
    given = dict(vars(namespace))
    kind: type[CommonOptions] = given.pop(_KIND)
    return kind(**given)

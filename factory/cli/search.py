"""`singfactory search`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from factory.cli import list as list_command
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.errors import NotFound
from factory.records import catalog
from factory.registry.protocol import Access


@dataclass(frozen=True)
class SearchOptions(CommonOptions):
    """Options of `singfactory search`."""

    words: Sequence[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("words", metavar="WORD", nargs="+", help="words that must all appear in the name or summary")
    common_arguments(parser, SearchOptions, registry=True, json=True)


def run(options: SearchOptions) -> int:
    """Print the recipes that match; exit 3 when none does."""
    context = Context(options)
    words = [word.casefold() for word in options.words]
    known = catalog.read(context.registry_for(Access.SURVEY))
    entries = [
        entry
        for _, entry in sorted(known.entries.items())
        if all(word in f"{entry.name} {entry.summary}".casefold() for word in words)
    ]
    list_command.show(context, known, entries)
    return 0 if entries else NotFound.exit_code

"""`singfactory update`."""

from __future__ import annotations

import argparse

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.errors import FactoryError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes; all without one")
    common_arguments(parser, json=True)


def run(options: argparse.Namespace) -> int:
    """Pin every base; one that cannot be looked up does not stop the others."""
    from factory import bases  # noqa: PLC0415
    from factory.cli.main import fail  # noqa: PLC0415
    from factory.cli.network import host_opener  # noqa: PLC0415

    context = Context(options)
    open_host = host_opener(context)
    rows, code = [], 0
    for recipe in context.recipes(options.names):
        try:
            done = bases.update(recipe, open_host)
        except FactoryError as error:
            code = code or fail(error)
            continue
        if done is not None:
            changed = done.before != done.pin.digest
            rows.append({"recipe": done.recipe, "base": done.pin.base, "digest": done.pin.digest, "changed": changed})
            if not options.json:
                print(f"{done.recipe}: {done.pin.base} {'is now' if changed else 'stays'} {done.pin.digest}")
    if options.json:
        emit(rows)
    return code

"""`singfactory new`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.recipes.scaffold import scaffold


@dataclass(frozen=True, kw_only=True)
class NewOptions(CommonOptions):
    """What `new` is given."""

    name: str
    base: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the recipe's name, such as pytorch-2.1")
    parser.add_argument("--from", dest="base", metavar="IMAGE", required=True, help="the Docker image to begin with")
    common_arguments(parser, NewOptions)


def run(options: NewOptions) -> int:
    """Write the recipe's folder and say what to do next."""
    context = Context(options)
    folder = scaffold(context.recipes_root, options.name, options.base)
    print(folder)
    context.progress.note(
        f"edit {folder / 'recipe.toml'} and {folder / 'image.def'}, then: singfactory make {options.name}"
    )
    return 0

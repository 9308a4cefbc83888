"""`singfactory new`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.recipes.scaffold import scaffold


@dataclass(frozen=True)
class NewOptions(CommonOptions):
    """Options of `singfactory new`."""

    name: str
    base: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="name of the recipe, such as pytorch-2.1")
    parser.add_argument("--from", dest="base", metavar="IMAGE", required=True, help="Docker image to start from")
    common_arguments(parser, NewOptions)


def run(options: NewOptions) -> int:
    """Create the recipe's folder and show the next steps."""
    context = Context(options)
    folder = scaffold(context.recipes_root, options.name, options.base)
    say_path(folder)
    context.progress.note(
        f"edit {folder / 'recipe.toml'} and {folder / 'image.def'}, then: singfactory make {options.name}"
    )
    return 0

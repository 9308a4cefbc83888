"""`singfactory path`. Scripts call it often: it starts fast and uses neither network nor engine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say, say_path


@dataclass(frozen=True)
class PathOptions(CommonOptions):
    """Options of `singfactory path`."""

    ref: str
    pinned: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "--pinned", action="store_true", help="print REGISTRY/NAME@sha256:HEX instead: the same image for ever"
    )
    common_arguments(parser, PathOptions, registry=True, store=True)


def run(options: PathOptions) -> int:
    """Print the path of a stored image. Raises NotFound if the store does not have it."""
    context = Context(options)
    store = context.store
    image = store.find(context.qualified(context.reference(options.ref)))
    store.lease(image.sif_digest, context.job, process=False)
    path = store.file(image)
    if options.pinned:
        say(str(image.pinned))
    else:
        say_path(path)
    return 0

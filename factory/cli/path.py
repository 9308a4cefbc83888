"""`singfactory path`: quick, since scripts call it; no network, no engine."""

from __future__ import annotations

import argparse

from factory.cli.context import Context, common_arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX")
    common_arguments(parser, registry=True, store=True)


def run(options: argparse.Namespace) -> int:
    """Print the file of a stored image; exit 3 when it is not there."""
    context = Context(options)
    store = context.store
    image = store.find(context.meant(context.reference(options.ref)))
    store.lease(image.sif_digest, context.job, process=False)
    print(store.file(image))
    return 0

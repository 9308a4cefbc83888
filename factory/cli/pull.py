"""`singfactory pull`."""

from __future__ import annotations

import argparse
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.errors import UsageError
from factory.io.files import readable_size
from factory.names import Reference


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("refs", metavar="REF", nargs="+", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also put a copy at this path")
    common_arguments(parser, registry=True, store=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Fetch each image into the store; prints its path and digest."""
    from factory.pull import copy_out, pull  # noqa: PLC0415

    context = Context(options)
    if options.output is not None and len(options.refs) > 1 and not options.output.is_dir():
        raise UsageError("-o takes one image, or a folder", fix="name one image, or make the folder first")
    rows = []
    for reference in [Reference.parse(text) for text in options.refs]:
        done = pull(
            reference,
            registry=context.registry_of(reference),
            store=context.store,
            arch=context.arch,
            progress=context.progress,
        )
        copied = copy_out(done, options.output.absolute()) if options.output is not None else None
        rows.append({**done.to_json(), **({"copy": str(copied)} if copied else {})})
        if not options.json:
            print(f"{copied or done.path} {done.image.sif_digest}")
            got = f"{readable_size(done.transferred)} fetched" if done.transferred else "it was here"
            context.progress.note(f"{done.image.recipe}:{done.image.tag}, manifest {done.image.digest}: {got}")
    if options.json:
        emit(rows[0] if len(rows) == 1 else rows)
    return 0

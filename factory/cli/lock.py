"""`singfactory lock`: record images by digest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.io import files
from factory.oci.names import Reference
from factory.pull.locking import lock_image
from factory.records.lockfile import LockedImage, render

LOCK_FILE = Path("singfactory.lock")


@dataclass(frozen=True, kw_only=True)
class LockOptions(CommonOptions):
    """Options of `singfactory lock`."""

    refs: Sequence[str]
    output: Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("refs", metavar="REF", nargs="+", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "-o", "--output", type=Path, default=LOCK_FILE, metavar="FILE", help=f"default {LOCK_FILE}; - for stdout"
    )
    common_arguments(parser, LockOptions, registry=True, store=True)


def run(options: LockOptions) -> int:
    """Write a lock file of the images that `exec` would run now. No image is fetched."""
    context = Context(options)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    images = dict.fromkeys(_locked(context, context.reference(text), date) for text in options.refs)
    if str(options.output) == "-":
        sys.stdout.write(render(images))
        return 0
    files.atomic_write(options.output.absolute(), render(images))
    for image in images:
        context.progress.note(f"locked {image.name}:{image.tag} as {image.digest}")
    say_path(options.output)
    return 0


def _locked(context: Context, reference: Reference, date: str) -> LockedImage:
    return lock_image(
        reference,
        context.qualified(reference),
        store=context.store,
        open_registry=context.registry_of,
        arch=context.arch,
        date=date,
        progress=context.progress,
    )

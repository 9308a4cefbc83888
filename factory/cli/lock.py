"""`singfactory lock`: record images by digest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.io import files, locks
from factory.oci.names import Reference
from factory.pull.locking import lock_image
from factory.records.lockfile import Change, LockedImage, merge, read_for_update, render

LOCK_FILE = Path("singfactory.lock")
_LOCK_TIMEOUT = 60.0  # seconds to wait for another `lock` that updates the same file


@dataclass(frozen=True)
class LockOptions(CommonOptions):
    """Options of `singfactory lock`."""

    refs: Sequence[str]
    output: Path
    replace: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("refs", metavar="REF", nargs="+", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "-o", "--output", type=Path, default=LOCK_FILE, metavar="FILE", help=f"default {LOCK_FILE}; - for stdout"
    )
    parser.add_argument("--replace", action="store_true", help="drop all other images from the file")
    common_arguments(parser, LockOptions, registry=True, store=True)


def run(options: LockOptions) -> int:
    """Add the images that `exec` would run now to a lock file, or update them there. No image is fetched."""
    context = Context(options)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    references = [context.reference(text) for text in options.refs]
    named = [(reference, _locked(context, reference, date)) for reference in references]
    if str(options.output) == "-":
        sys.stdout.write(render(merge((), named)[0]))
        return 0
    path = Path(os.path.realpath(options.output))  # a link is kept, and its target updated
    with locks.lock(path.with_name(f".{path.name}.lock"), _LOCK_TIMEOUT, context.progress):
        before = read_for_update(path)
        images, changes = merge(() if options.replace else before, named)
        if images != before:
            files.atomic_write(path, render(images))
    for line in _report(changes, before, images):
        context.progress.note(line)
    say_path(options.output)
    return 0


def _report(changes: Sequence[Change], before: Sequence[LockedImage], after: Sequence[LockedImage]) -> Iterator[str]:
    """Yield a line for each image that was locked, and for each entry that is no longer in the file."""
    for change in changes:
        entry, old = change.entry, change.before
        if entry == old:
            yield f"{entry.name}:{entry.tag} is already locked as {entry.digest}"
        else:
            was = f" (was {old.tag}, {old.digest})" if old else ""
            yield f"locked {entry.name}:{entry.tag} as {entry.digest}{was}"
    updated = [change.before for change in changes]
    for entry in before:
        if entry not in after and entry not in updated:
            yield f"dropped {entry.name}:{entry.tag}, {entry.digest}"


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

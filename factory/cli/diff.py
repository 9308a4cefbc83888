"""`singfactory diff`."""

from __future__ import annotations

import argparse

from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit, printable
from factory.compare import Bytes, changed_parts, shared_bytes
from factory.io.files import readable_size
from factory.names import Reference
from factory.release import Release
from factory.resolve import resolve


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("before", metavar="REF")
    parser.add_argument("after", metavar="REF")
    common_arguments(parser, registry=True, store=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Print what differs; the bytes too when both images are in the store."""
    context = Context(options)
    before, after = (_release(context, text) for text in (options.before, options.after))
    rows = changed_parts(before, after)
    shared = _bytes(context, before, after)
    if options.json:
        sizes = {"reused": shared.reused, "missing": shared.missing} if shared else None
        emit({"changed": {name: [old, new] for name, old, new in rows}, "bytes": sizes})
        return 0
    for name, old, new in rows:
        print(printable(f"{name:12} {_short(old)} -> {_short(new)}"))
    if not rows:
        print("no difference")
    if shared is not None:
        new, known, total = map(readable_size, (shared.missing, shared.reused, after.sif.size))
        print(f"{'bytes':12} {new} of {total} are new, {known} are shared")
    else:
        context.progress.note("pull both images to see how many bytes they share")
    return 0


def _release(context: Context, text: str) -> Release:
    reference = Reference.parse(text)
    return resolve(reference, context.registry_of(reference), context.arch).release


def _bytes(context: Context, before: Release, after: Release) -> Bytes | None:
    old, new = context.store.where(before.sif), context.store.where(after.sif)
    if old is None or new is None:
        return None
    return shared_bytes(old, new, context.progress)


def _short(text: str) -> str:
    return (text[:12] if len(text) == 64 else text) or "-"  # noqa: PLR2004 - a SHA-256 in hexadecimal

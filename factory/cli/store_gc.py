"""`singfactory store gc`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from factory.cli.context import Context
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.errors import FactoryError
from factory.io import process
from factory.io.files import readable_size
from factory.oci.digest import Digest
from factory.recipes.quantities import parse_duration, parse_size
from factory.records import lockfile
from factory.store.gc import Rules, Verdict, collect
from factory.store.leases import Queue, queue_of

_T = TypeVar("_T")


@dataclass(frozen=True)
class GcOptions(CommonOptions):
    """Options of `singfactory store gc`. Times are in seconds, sizes in bytes."""

    action: str
    dry_run: bool
    older_than: float | None
    keep: int | None
    max_size: int | None
    grace: float
    lease_grace: float
    lock_file: Sequence[Path]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("-n", "--dry-run", action="store_true", help="only show what would be removed")
    add("--older-than", type=_seconds, metavar="30d", help="also remove tagged images that were not used for this long")
    add(
        "--keep",
        type=_count,
        metavar="N",
        help="keep the N last used of each recipe; alone, remove the rest",
    )
    add(
        "--max-size",
        type=_checked(parse_size),
        metavar="500GB",
        help="remove the longest unused until the rest fits",
    )
    add("--grace", type=_seconds, default=86400.0, metavar="1d", help="keep images used within this time (default 1d)")
    add(
        "--lease-grace",
        type=_seconds,
        default=7 * 86400.0,
        metavar="7d",
        help="how long images count as in use on machines that cannot be asked (default 7d)",
    )
    add(
        "--lock-file", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help="keep the images in FILE"
    )


def run(context: Context, options: GcOptions) -> int:
    """Remove unused images; print each file, its size and the reason."""
    rules = Rules(
        grace=options.grace,
        patience=options.lease_grace,
        older_than=options.older_than,
        keep=options.keep,
        max_size=options.max_size,
        locked=_locked(options.lock_file),
    )
    found = collect(context.store, rules, queue=queue_now(context), dry_run=options.dry_run, progress=context.progress)
    removed = [verdict for verdict in found if not verdict.keep]
    kept = [verdict for verdict in found if verdict.keep]
    if options.json:
        emit(
            {
                "dry_run": options.dry_run,
                "freed": sum(verdict.freed for verdict in removed),
                "removed": [_row(verdict) for verdict in removed],
                "kept": [_row(verdict) for verdict in kept],
            }
        )
    else:
        _show(removed, kept, dry_run=options.dry_run, verbose=options.verbose)
    return 0


def _show(removed: list[Verdict], kept: list[Verdict], *, dry_run: bool, verbose: bool) -> None:
    what = "would remove" if dry_run else "removed"
    for word, verdicts in ((what, removed), ("kept", kept if verbose else [])):
        for verdict in verdicts:
            say(f"{word}  {readable_size(verdict.size):>7}  {verdict.name}: {verdict.why}")
    freed = readable_size(sum(verdict.freed for verdict in removed))
    left = readable_size(sum(verdict.size for verdict in kept))
    say(f"{freed} {'would be ' if dry_run else ''}freed; {left} kept")


def _row(verdict: Verdict) -> dict[str, object]:
    return {
        "path": str(verdict.path),
        "name": verdict.name,
        "size": verdict.size,
        "freed": verdict.freed,
        "why": verdict.why,
    }


def _locked(paths: Sequence[Path]) -> dict[Digest, str]:
    """Images in the lock files. An unreadable file is an error: it might protect any image."""
    return {image.sif_digest: str(path) for path in paths for image in lockfile.read(path)}


def queue_now(context: Context) -> Queue | None:
    """SLURM's queue; None without SLURM."""

    def ask(arguments: list[str]) -> str | None:
        try:
            status, out, _ = process.output_of(arguments, env=context.env, timeout=30)
        except FactoryError:
            return None
        return out.decode(errors="replace") if status == 0 else None

    return queue_of(ask, os.getuid())


def _checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    def read(text: str) -> _T:
        try:
            return parse(text)
        except (ValueError, OverflowError) as error:
            hint = "write a size such as 500GB, or a time such as 30d or 12h"
            raise argparse.ArgumentTypeError(f"{text!r}: {hint}") from error

    return read


def _seconds(text: str) -> float:
    return 0.0 if text == "0" else _checked(parse_duration)(text).total_seconds()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):  # noqa: PLR2004 - a million images
        raise argparse.ArgumentTypeError(f"{text!r}: write a number, such as 2")
    return int(text)

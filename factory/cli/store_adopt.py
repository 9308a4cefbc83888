"""`singfactory store adopt`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say_path
from factory.errors import UsageError
from factory.oci.names import Reference
from factory.store.adopt import adopt

_WAYS = {"reflink": "shared blocks", "link": "hard link", "copy": "copy", "here": "already in the store"}


@dataclass(frozen=True)
class AdoptOptions(CommonOptions):
    """Options of `singfactory store adopt`."""

    action: str
    files: Sequence[Path]
    name: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="SIF file; it may become read-only")
    parser.add_argument("--as", dest="name", metavar="NAME:TAG", help="name in the store (default: the file name)")


def run(context: Context, options: AdoptOptions) -> int:
    """Add each file to the store; print its path there and its digest."""
    if options.name and len(options.files) > 1:
        raise UsageError("--as names one image", fix="adopt one file at a time, or remove --as")
    named = [(path, _reference(path, options.name)) for path in options.files]
    rows = []
    for path, reference in named:
        done = adopt(context.store, path.absolute(), reference, context.progress)
        image = done.image
        rows.append(
            {
                "name": image.recipe,
                "tag": image.tag,
                "sif_digest": str(image.sif_digest),
                "path": str(done.path),
                "size": image.size,
                "way": done.way,
                "file": str(path),
            }
        )
        if not options.json:
            say_path(done.path, f" {image.sif_digest}")
            context.progress.note(f"{path} is now {image.recipe}:{image.tag} ({_WAYS[done.way]})")
    if options.json:
        emit(rows[0] if len(rows) == 1 else rows)
    return 0


def _reference(path: Path, name: str | None) -> Reference:
    try:
        reference = Reference.parse(name or path.stem)
    except UsageError as error:
        fix = error.fix if name else f"choose a name: singfactory store adopt {path} --as NAME:TAG"
        raise UsageError(error.what, why=error.why, fix=fix) from error
    if reference.digest is not None or reference.registry is not None:
        raise UsageError(f"--as takes NAME or NAME:TAG, not {reference}", fix="remove the registry and the digest")
    return reference

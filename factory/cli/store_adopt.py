"""`singfactory store adopt`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.errors import UsageError
from factory.oci.names import Reference
from factory.store.adopt import adopt

_WAYS = {"reflink": "shared blocks", "link": "a second name of the same file", "copy": "a copy", "here": "it was here"}


@dataclass(frozen=True, kw_only=True)
class AdoptOptions(CommonOptions):
    """What `store adopt` is given."""

    action: str
    files: Sequence[Path]
    name: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a SIF image; it may become read-only")
    parser.add_argument("--as", dest="name", metavar="NAME:TAG", help="what to call it (default: the file's name)")


def run(context: Context, options: AdoptOptions) -> int:
    """Take each file into the store; prints its path there and its digest."""
    if options.name and len(options.files) > 1:
        raise UsageError("--as names one image", fix="adopt one file at a time, or leave --as out")
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
            say(f"{done.path} {image.sif_digest}")
            context.progress.note(f"{path} is {image.recipe}:{image.tag} now ({_WAYS[done.way]})")
    if options.json:
        emit(rows[0] if len(rows) == 1 else rows)
    return 0


def _reference(path: Path, name: str | None) -> Reference:
    try:
        reference = Reference.parse(name or path.stem)
    except UsageError as error:
        fix = error.fix if name else f"say what to call it: singfactory store adopt {path} --as NAME:TAG"
        raise UsageError(error.what, why=error.why, fix=fix) from error
    if reference.digest is not None or reference.registry is not None:
        raise UsageError(f"--as takes NAME or NAME:TAG, not {reference}", fix="leave registry and digest out")
    return reference

"""`singfactory stage`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.errors import UsageError
from factory.io.files import readable_size
from factory.store import leases
from factory.store.refs import StoredImage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="a stored image: NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="a folder on the node's own disk (default $SLURM_TMPDIR)"
    )
    common_arguments(parser, registry=True, store=True)


def run(options: argparse.Namespace) -> int:
    """Copy a stored image to the node's own disk once; prints the copy's path."""
    context = Context(options)
    local = _own(options.to.absolute()) if options.to else local_disk(context)
    if local is None:
        raise UsageError(
            "no local disk is known",
            why="SLURM_TMPDIR is not set: this is no job",
            fix="--to DIR, or stage = … in the site's config.toml",
        )
    image = context.store.find(context.meant(context.reference(options.ref)))
    context.store.lease(image.sif_digest, context.job, process=False)
    leases.take(local, image.sif_digest, context.job, process=False)
    print(copy(context, image, local))
    return 0


def local_disk(context: Context) -> Path | None:
    """Where staged copies go on this node; None outside of jobs, unless the site says where. Raises NoRoom."""
    named = context.settings.path("stage")
    if named is not None:
        return _own(named)
    return _own(Path(context.env["SLURM_TMPDIR"]) / "singfactory") if context.env.get("SLURM_TMPDIR") else None


def _own(folder: Path) -> Path:
    """This user's part of a folder that all users of a node may write."""
    from factory.io.files import private_folder  # noqa: PLC0415

    return private_folder(folder / f"user-{os.geteuid()}")


def copy(context: Context, image: StoredImage, local: Path) -> Path:
    """Stage an image and tell what was copied."""
    from factory.stage import stage  # noqa: PLC0415

    done = stage(image, store=context.store, local=local, progress=context.progress)
    if done.copied:
        context.progress.note(f"staged {image.recipe}:{image.tag} ({readable_size(done.copied)}) to {local}")
    return done.path

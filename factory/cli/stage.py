"""`singfactory stage`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.errors import PlaceUnusable, UsageError
from factory.io.files import readable_size
from factory.store import leases
from factory.store.refs import StoredImage


@dataclass(frozen=True, kw_only=True)
class StageOptions(CommonOptions):
    """What `stage` is given."""

    ref: str
    to: Path | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="a stored image: NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="a folder on the node's own disk (default $SLURM_TMPDIR)"
    )
    common_arguments(parser, StageOptions, registry=True, store=True)


def run(options: StageOptions) -> int:
    """Copy a stored image to the node's own disk once; prints the copy's path."""
    context = Context(options)
    local = _asked_for(options.to.absolute()) if options.to else local_disk(context)
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
    """Where staged copies go on this node, this user's own folder; None outside of jobs, unless the site says where.

    Raises PlaceUnusable where there is none, or none that is safe. What all users share is never made by one of
    them, who would own it, and could swap what the others run.
    """
    from factory.io.ancestors import private_folder  # noqa: PLC0415

    named = context.settings.path("stage")
    if named is not None:
        if not named.is_dir():
            raise PlaceUnusable(
                f"the folder for staged images, {named}, is not there",
                why="all users of this node share it, so none of them makes it",
                fix=f"ask the administrator for it: install -d -m 1777 {named}",
            )
        return private_folder(named / f"user-{os.geteuid()}")
    job = context.env.get("SLURM_TMPDIR")
    return private_folder(Path(job).absolute() / f"singfactory-{os.geteuid()}") if job else None


def _asked_for(folder: Path) -> Path:
    """This user's part of a folder that was named for this one copy; it is made for nobody else."""
    from factory.io.ancestors import private_folder  # noqa: PLC0415

    return private_folder(folder / f"user-{os.geteuid()}", parents=True)


def copy(context: Context, image: StoredImage, local: Path) -> Path:
    """Stage an image and tell what was copied."""
    from factory.pull.stage import stage  # noqa: PLC0415

    done = stage(image, store=context.store, local=local, progress=context.progress)
    if done.copied:
        context.progress.note(f"staged {image.recipe}:{image.tag} ({readable_size(done.copied)}) to {local}")
    return done.path

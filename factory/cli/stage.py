"""`singfactory stage`: copy an image to the node's local disk."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.engine import driver
from factory.engine.machine import gpu_present
from factory.errors import PlaceUnusable, UsageError
from factory.io.ancestors import private_folder
from factory.io.files import readable_size
from factory.pull.stage import stage
from factory.store import leases
from factory.store.refs import StoredImage

IGNORE_DRIVER = "--ignore-driver"


@dataclass(frozen=True)
class StageOptions(CommonOptions):
    """Options of `singfactory stage`."""

    ref: str
    to: Path | None
    ignore_driver: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="a stored image: NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="a folder on a local disk (default: the setting stage, or $SLURM_TMPDIR)"
    )
    driver_argument(parser)
    common_arguments(parser, StageOptions, registry=True, store=True)


def driver_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--ignore-driver`."""
    parser.add_argument(
        IGNORE_DRIVER,
        action="store_true",
        help="go on even if the image needs a newer NVIDIA driver than this machine's",
    )


def run(options: StageOptions) -> int:
    """Copy a stored image to the node's local disk unless a copy exists, and print the copy's path."""
    context = Context(options)
    local = _asked_for(options.to.absolute()) if options.to else local_disk(context)
    if local is None:
        raise UsageError(
            "there is no local disk to copy to",
            why="SLURM_TMPDIR is not set, and neither is stage in a config.toml",
            fix="singfactory stage REF --to DIR, where DIR is on a local disk",
        )
    image = context.store.find(context.qualified(context.reference(options.ref)))
    if image.gpu == "nvidia" == gpu_present() and not options.ignore_driver:
        driver.require_driver(
            image.recipe, image.needs, driver.nvidia_driver(), f"copy it all the same: {IGNORE_DRIVER}"
        )
    context.store.lease(image.sif_digest, context.job, process=False)
    leases.take(local, image.sif_digest, context.job, process=False)
    say_path(copy(context, image, local))
    return 0


def local_disk(context: Context) -> Path | None:
    """Return this user's folder for staged copies on this node, or None if neither the site nor a job names a disk.

    Raises PlaceUnusable if the folder is missing or unsafe. A folder that all users share must not be made by one of
    them: its owner could replace the images of all others.
    """
    named = context.settings.path("stage")
    if named is not None:
        if not named.is_dir():
            raise PlaceUnusable(
                f"the folder for staged images, {named}, does not exist",
                why="all users of this node share it, so an administrator must create it",
                fix=f"ask the administrator to run: install -d -m 1777 {named}",
            )
        return private_folder(named / f"user-{os.geteuid()}")
    job = context.env.get("SLURM_TMPDIR")
    return private_folder(Path(job).absolute() / f"singfactory-{os.geteuid()}") if job else None


def _asked_for(folder: Path) -> Path:
    """Return this user's folder below the folder of --to. Both are created if needed."""
    return private_folder(folder / f"user-{os.geteuid()}", parents=True)


def copy(context: Context, image: StoredImage, local: Path) -> Path:
    """Stage an image, with a notice if it was copied. Returns the copy's path."""
    done = stage(image, store=context.store, local=local, progress=context.progress)
    if done.copied:
        context.progress.note(f"staged {image.recipe}:{image.tag} ({readable_size(done.copied)}) to {local}")
    return done.path

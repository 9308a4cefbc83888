"""`singfactory stage`: copy an image to the node's local disk."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say_path
from factory.engine.machine import gpu_present
from factory.errors import FactoryError, PlaceUnusable
from factory.io.ancestors import private_folder
from factory.io.files import readable_size
from factory.store import leases
from factory.store.refs import StoredImage
from factory.store.store import Store

if TYPE_CHECKING:  # needed by the process that copies on one of several nodes
    from factory.jobs.broadcast import Chain
    from factory.jobs.rendezvous import Step
    from factory.pull.stage import Staged

NO_DISK = "not copied: the setting stage names no local disk, and SLURM_TMPDIR is not set; this is the store's file"
MARGIN = 64 * 1024 * 1024  # bytes to leave free
_IDLE = 3600.0  # seconds without use after which a copy that no process or job uses is removed
_SBCAST_LIMIT = 1800.0  # seconds
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
    common_arguments(parser, StageOptions, registry=True, store=True, json=True)


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
    image = context.store.find(context.qualified(context.reference(options.ref)))
    if image.gpu == "nvidia" == gpu_present() and not options.ignore_driver:
        from factory.engine import driver  # noqa: PLC0415 - most images need none

        driver.require_driver(
            image.recipe, image.needs, driver.nvidia_driver(), f"copy it all the same: {IGNORE_DRIVER}"
        )
    context.store.lease(image.sif_digest, context.job, process=False)
    began = time.monotonic()
    if local is None:
        context.progress.note(NO_DISK)
        from factory.pull.stage import Staged  # noqa: PLC0415 - as in _copy

        done, chain = Staged(context.store.file(image), 0), None
    else:
        leases.take(local, image.sif_digest, context.job, process=False)
        done, chain = _copy(context, image, local)
    if options.json:
        emit(_row(image, done, chain, time.monotonic() - began))
    else:
        say_path(done.path)
    if chain is not None:
        sys.stdout.flush()
        with contextlib.closing(chain):
            chain.stay()
    return 0


def _row(image: StoredImage, done: Staged, chain: Chain | None, seconds: float) -> dict[str, object]:
    return {
        "name": image.recipe,
        "tag": image.tag,
        "digest": str(image.digest),
        "sif_digest": str(image.sif_digest),
        "path": str(done.path),
        "size": image.size,
        "copied": done.copied,
        "from_store": chain.from_store if chain else done.copied,
        "from_nodes": chain.from_nodes if chain else 0,
        "linked": done.linked,
        "seconds": round(seconds, 3),
    }


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
    """Stage an image, with a notice if it was copied. Returns the copy's path. For a process that is about to exec.

    If other nodes of the job still need the copy, a process of its own passes it on to them.
    """
    if (there := replace(context.store, root=local, shared=()).usable_here(image.sif)) is not None:
        return there  # the way of every task but the first: it imports nothing that copies
    done, chain = _copy(context, image, local)
    if chain is not None:
        from factory.io.aside import aside  # noqa: PLC0415 - of the first task on each of several nodes

        chain.pause()
        if chain.is_over or not aside(lambda: _go_on(chain)):
            chain.close()
    return done.path


def _go_on(chain: Chain) -> None:
    chain.resume()
    chain.stay()
    chain.close()


def _copy(context: Context, image: StoredImage, local: Path) -> tuple[Staged, Chain | None]:
    """Stage an image. Returns the copy, and this node's place in the chain of nodes if it has one."""
    from factory.pull.neighbors import Neighbors  # noqa: PLC0415 - `exec` mostly finds a copy
    from factory.pull.stage import Staged, on_node, stage  # noqa: PLC0415

    here = on_node(context.store, local)
    if (path := here.usable_here(image.sif)) is not None:
        return Staged(path, 0), None
    chain = _chain(context, image, here)
    own = context.settings.path("stage") is None and local.parent == Path(context.env.get("SLURM_TMPDIR") or "/")
    neighbors = Neighbors(local, context.store) if own else None
    try:
        done = stage(
            image,
            store=context.store,
            local=local,
            progress=context.progress,
            relay=chain,
            prepare=lambda: _make_room(context, here, image.size),
            neighbors=neighbors,
        )
    except BaseException:
        if chain is not None:
            chain.close()
        raise
    if chain is not None and not done.copied:
        chain.close()
        chain = None
    _tell(context, image, done, chain, local)
    return done, chain


def _make_room(context: Context, here: Store, size: int) -> None:
    """Remove copies that nobody uses. If that is not possible, the copy may still fit."""
    from factory.cli.store_gc import queue_now  # noqa: PLC0415 - only the process that copies needs it
    from factory.io.progress import Silent  # noqa: PLC0415
    from factory.store.gc import make_room  # noqa: PLC0415

    with contextlib.suppress(FactoryError, OSError):
        make_room(here, size + MARGIN, idle=_IDLE, queue=lambda: queue_now(context), progress=Silent())


def _chain(context: Context, image: StoredImage, here: Store) -> Chain | None:
    """Return this node's place in the chain of nodes that pass the image on; None if it only copies for itself."""
    if context.env.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return None
    from factory.jobs import broadcast, ways  # noqa: PLC0415 - on several nodes only
    from factory.jobs.rendezvous import Step  # noqa: PLC0415

    step = Step.parse(context.env)
    file = context.store.file(image, hashed=False)
    way = ways.choose(context.settings.text("broadcast", ways.AUTO), file, image.size)
    if step is None or way == ways.OFF:
        return None
    try:
        if way == ways.PIECES:
            return broadcast.chain(context.store, step, image.sif)
        _sbcast(context, step, file, image, here)
    except (FactoryError, OSError) as error:
        context.progress.note(f"every node copies for itself: {error}")
    return None


def _sbcast(context: Context, step: Step, file: Path, image: StoredImage, here: Store) -> None:
    """Let SLURM bring the file to all nodes of the job. Raises FactoryError: then it must be copied."""
    from factory.io import process  # noqa: PLC0415 - where a site prefers sbcast
    from factory.jobs import sbcast  # noqa: PLC0415
    from factory.jobs.rendezvous import Rendezvous  # noqa: PLC0415

    if context.env.get("SLURM_JOB_NUM_NODES") != str(step.nodes):
        raise PlaceUnusable("sbcast reaches all nodes of a job", why="this step is on some of them")

    def ran(arguments: list[str]) -> str:
        status, _, err = process.output_of(arguments, env=context.env, timeout=_SBCAST_LIMIT)
        return "" if status == 0 else err.decode(errors="replace").strip() or f"exit status {status}"

    with contextlib.closing(Rendezvous.at(context.store, step, image.sif_digest)) as meeting:
        try:
            sbcast.spread(step, image.sif, meeting, source=file, here=here, run=ran, progress=context.progress)
        finally:
            meeting.retract(step.node)


def _tell(context: Context, image: StoredImage, done: Staged, chain: Chain | None, local: Path) -> None:
    if done.copied:
        passed = f", {readable_size(chain.from_nodes)} of them from other nodes" if chain and chain.from_nodes else ""
        context.progress.note(f"staged {image.recipe}:{image.tag} ({readable_size(done.copied)}{passed}) to {local}")
    elif done.linked and context.options.verbose:
        context.progress.note(f"staged {image.recipe}:{image.tag} to {local}: shared with another job on this node")
    for text in chain.notes if chain is not None and context.options.verbose else ():
        context.progress.note(text)

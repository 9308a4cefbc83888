"""`singfactory exec`, `run` and `shell`: an image with the recipe's own GPU, environment and mount points."""

from __future__ import annotations

import argparse
import json
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from factory.cli import stage
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.errors import IntegrityFailure, NotFound, PlaceUnusable, UsageError
from factory.io import files
from factory.oci.names import Reference, RegistryAddress
from factory.store import leases
from factory.store.refs import Purged, StoredImage

GPU_OPTIONS = {"nvidia": "--nv", "rocm": "--rocm"}


@dataclass(frozen=True, kw_only=True)
class RunOptions(CommonOptions):
    """What `exec`, `run` and `shell` are given. arguments: the program inside and its own; `shell` has none."""

    ref: str
    arguments: Sequence[str] = ()
    bind: Sequence[str]
    engine_option: Sequence[str]
    no_gpu: bool
    record: Path | None


def declare(parser: argparse.ArgumentParser, *, command: bool) -> None:
    """The options of exec, run and shell. Everything after ``--`` belongs to the program inside."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX; pulled when it is not stored")
    if command:
        parser.add_argument("arguments", metavar="-- ARGUMENT", nargs="*", help="the program inside and its arguments")
    parser.add_argument("-B", "--bind", action="append", default=[], metavar="SRC[:DEST]", help="as apptainer takes it")
    parser.add_argument(
        "--engine-option", action="append", default=[], metavar="OPTION", help="passed on, as --opt=value"
    )
    parser.add_argument("--no-gpu", action="store_true", help="do not ask for a GPU even if the recipe does")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append a line of JSON that tells what is run")
    common_arguments(parser, RunOptions, registry=True, store=True)


def execute(verb: str, options: RunOptions) -> int:
    """Become the engine; returns only by an error."""
    context = Context(options)
    arguments = list(options.arguments)
    if verb == "exec" and not arguments:
        raise UsageError("no command to run", fix=f"singfactory exec {options.ref} -- python train.py")
    engine = context.engine  # first: without one, nothing has to be fetched
    image = _in_use(context, _stored(context, context.meant(context.reference(options.ref))))
    path = _near(context, image)
    given = _engine_options(context, image, options)
    if options.record is not None:
        files.append_line(options.record, json.dumps(_record(context, image, path, [verb, *arguments])))
    engine.become(verb, path, arguments, given, engine.with_inside(context.env, image.env))


def _near(context: Context, image: StoredImage) -> Path:
    """The copy on the node's own disk in jobs; the store's file elsewhere, and where staging does not work."""
    try:
        local = stage.local_disk(context)
        if local is not None:
            leases.take(local, image.sif_digest, context.job)
            return stage.copy(context, image, local)
    except (PlaceUnusable, IntegrityFailure) as error:
        context.progress.note(f"not staged ({error}): running from {context.store.root}; {error.fix}")
    return context.store.file(image)


def _in_use(context: Context, image: StoredImage) -> StoredImage:
    """Take a lease, which this process keeps when it becomes the engine, and look then whether the image is there."""
    context.store.lease(image.sif_digest, context.job)
    return image if context.store.holds(image) else _fetch_again(context, image)


def _fetch_again(context: Context, image: StoredImage) -> StoredImage:
    """What a scratch file system has deleted comes back as the same digest, whatever its tag names by now."""
    from factory.pull.pull import pull  # noqa: PLC0415

    reference = Reference(image.recipe, digest=image.digest)
    if not image.registry:
        raise Purged(reference, image, context.store.blob(image.sif_digest))
    context.progress.note(f"{image.recipe}:{image.tag} was deleted from the store; fetching the same image again")
    named = context.options.registry
    registry = context.registry if named else context.open_registry(RegistryAddress.parse(image.registry))
    pull(
        reference,
        registry=registry,
        store=context.store,
        arch=context.arch,
        progress=context.progress,
        locked=image.sif_digest,
    )
    return image


def _record(context: Context, image: StoredImage, path: Path, command: Sequence[str]) -> dict[str, object]:
    """What is about to run, for people who must know it years later."""
    return {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "name": image.recipe,
        "tag": image.tag,
        "registry": image.registry,
        "digest": str(image.digest),
        "sif_digest": str(image.sif_digest),
        "path": str(path),
        "command": list(command),
        "host": os.uname().nodename,
        "user": _user(),
        "slurm_job": context.job.number,
    }


def _user() -> str:
    """The login name; the number where the system knows none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _stored(context: Context, reference: Reference) -> StoredImage:
    try:
        return context.store.find(reference)
    except Purged as gone:
        return gone.image
    except NotFound:
        from factory.pull.pull import pull  # noqa: PLC0415 - most runs find their image in the store

        registry = context.registry_of(reference)
        return pull(
            reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress
        ).image


def _engine_options(context: Context, image: StoredImage, options: RunOptions) -> Sequence[str]:
    from factory.engine.host import gpu_present  # noqa: PLC0415

    chosen = []
    wanted = "" if options.no_gpu else image.gpu
    if wanted in GPU_OPTIONS:
        if gpu_present() == wanted:
            chosen.append(GPU_OPTIONS[wanted])
        else:
            context.progress.note(f"{image.recipe} wants a GPU ({wanted}), and this machine has none: running without")
    for bind in options.bind:
        chosen += ["--bind", bind]
    return [*chosen, *options.engine_option]

"""Shared by `singfactory exec`, `run` and `shell`: start the engine with the recipe's GPU option and environment."""

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
from factory.engine import container, driver
from factory.engine.host import gpu_present
from factory.errors import IntegrityFailure, NotFound, PlaceUnusable, UsageError
from factory.io import files
from factory.oci.names import Reference, RegistryAddress
from factory.store import leases
from factory.store.refs import Purged, StoredImage

_RECORD_BEGINS = b'{"time": "'  # the first key of a record: a file that begins otherwise has no records
GPU_OPTIONS = {"nvidia": "--nv", "rocm": "--rocm"}


@dataclass(frozen=True)
class RunOptions(CommonOptions):
    """Options of `singfactory exec`, `run` and `shell`. arguments: everything after REF."""

    ref: str
    bind: Sequence[str]
    engine_option: Sequence[str]
    no_gpu: bool
    ignore_driver: bool
    record: Path | None
    arguments: Sequence[str] = ()


class _Program(argparse.Action):
    """Takes everything after REF as the program's words, like docker and apptainer do."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        words: str | Sequence[str] | None,
        _option: str | None = None,
    ) -> None:
        """Store the words, without a ``--`` in front of them."""
        found = list(words or ())
        setattr(namespace, self.dest, found[1:] if found[:1] == ["--"] else found)


class _Command(_Program):
    """The same for `exec`, which has options of ours in REF OPTION... -- PROGRAM: no program's name begins with a -."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        words: str | Sequence[str] | None,
        option: str | None = None,
    ) -> None:
        """Store the words. Raises UsageError for options after REF without a ``--`` behind them."""
        found = list(words or ())
        if found and found[0].startswith("-") and found[0] != "--":
            if "--" not in found:
                raise UsageError(
                    f"{found[0]} is not a program",
                    why="everything after REF is the program and its arguments",
                    fix=f"options go before REF: {parser.prog} {found[0]} ... {namespace.ref} PROGRAM",
                )
            end = found.index("--")
            parser.parse_args([*found[:end], namespace.ref], namespace)
            found = found[end:]
        super().__call__(parser, namespace, found, option)


def declare(parser: argparse.ArgumentParser, words: str = "") -> None:
    """Declare the options of exec, run and shell. words: what follows REF: PROGRAM, ARGUMENT, or nothing."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX; pulled if it is not stored")
    if words:
        parser.add_argument(
            "arguments",
            metavar=f"{words} ...",
            nargs=argparse.REMAINDER,
            action=_Command if words == "PROGRAM" else _Program,
            help="everything after REF belongs to the program in the image",
        )
    parser.add_argument(
        "-B", "--bind", action="append", default=[], metavar="SRC[:DEST]", help="bind a path, as in apptainer exec"
    )
    parser.add_argument(
        "--engine-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="option of the engine, as --opt=value",
    )
    parser.add_argument("--no-gpu", action="store_true", help="run without a GPU even if the recipe asks for one")
    stage.driver_argument(parser)
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the image and the command to FILE, as JSON")
    common_arguments(parser, RunOptions, registry=True, store=True)


def execute(verb: str, options: RunOptions) -> int:
    """Replace this process by the engine. Returns only by raising an error."""
    context = Context(options)
    arguments = list(options.arguments)
    if verb == "exec" and not arguments:
        raise UsageError("exec needs a program", fix=f"singfactory exec {options.ref} python train.py")
    engine = context.engine  # first: without an engine there is no point in fetching the image
    image = _in_use(context, _stored(context, context.qualified(context.reference(options.ref))))
    engine_options = _engine_options(context, image, options)
    path = _near(context, image)
    start = container.start(
        engine,
        env=context.env,
        recipe_env=image.env,
        options=engine_options,
        cwd=Path.cwd(),
        messages=container.message_options(context.env, quiet=options.quiet, verbose=options.verbose),
    )
    _note_left_out(context, start)
    if options.record is not None:
        line = json.dumps(_record(context, image, path, [verb, *arguments]))
        files.append_line(options.record, line, begins=_RECORD_BEGINS)
    container.become(engine, verb, path, arguments, start)


def _note_left_out(context: Context, start: container.Start) -> None:
    """Say which variables the program does not get. A login session's folder is of interest to few."""
    for name, why in start.left_out.items():
        if context.options.verbose or name != container.SESSION:
            context.progress.note(f"{name}={context.env[name]} is not passed on: {why}")


def _near(context: Context, image: StoredImage) -> Path:
    """Return the copy on the node's local disk in a job, or the store's file outside of jobs and if staging fails."""
    try:
        local = stage.local_disk(context)
        if local is not None:
            leases.take(local, image.sif_digest, context.job)
            return stage.copy(context, image, local)
    except (PlaceUnusable, IntegrityFailure) as error:
        context.progress.note(f"not staged ({error}); running from {context.store.root}; {error.fix}")
    return context.store.file(image)


def _in_use(context: Context, image: StoredImage) -> StoredImage:
    """Lease the image, then fetch it again if it is missing. The lease stays valid when the engine takes over."""
    context.store.lease(image.sif_digest, context.job)
    return image if context.store.holds(image) else _fetch_again(context, image)


def _fetch_again(context: Context, image: StoredImage) -> StoredImage:
    """Fetch the same digest again, for files that a scratch file system has purged. The tag may have moved since."""
    from factory.pull.pull import pull  # noqa: PLC0415 - most runs find their image in the store

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
    """Return the document that --record appends: image, command, host, user, job and time."""
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
    """Return the login name, or the user id if the system has no name for it, as in some containers."""
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
    chosen = []
    wanted = "" if options.no_gpu else image.gpu
    if wanted in GPU_OPTIONS:
        if gpu_present() == wanted:
            if not options.ignore_driver:
                otherwise = f"run it without the GPU (--no-gpu), or try it: {stage.IGNORE_DRIVER}"
                driver.require_driver(image.recipe, image.needs, driver.nvidia_driver(), otherwise)
            chosen.append(GPU_OPTIONS[wanted])
        else:
            asked = "; ask for one: sbatch --gpus=1" if context.job.number else ""
            context.progress.note(f"{image.recipe} asks for a GPU ({wanted}), but this machine has none{asked}")
    for bind in options.bind:
        chosen += ["--bind", bind]
    return [*chosen, *options.engine_option]

"""`singfactory exec`, `run` and `shell`: an image with the recipe's own GPU, environment and mount points."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from factory.cli import stage
from factory.cli.context import Context, common_arguments
from factory.errors import NotFound, UsageError
from factory.names import Reference
from factory.store.refs import StoredImage

GPU_OPTIONS = {"nvidia": "--nv", "rocm": "--rocm"}


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
    common_arguments(parser, registry=True, store=True)


def execute(verb: str, options: argparse.Namespace) -> int:
    """Become the engine; returns only by an error."""
    context = Context(options)
    arguments = list(getattr(options, "arguments", []))
    if verb == "exec" and not arguments:
        raise UsageError("no command to run", fix=f"singfactory exec {options.ref} -- python train.py")
    image = _stored(context, Reference.parse(options.ref))
    local = stage.local_disk(context)
    path = stage.copy(context, image, local) if local else context.store.blob(image.sif_digest)
    engine = context.engine
    context.engine.become(
        verb, path, arguments, _engine_options(context, image, options), engine.with_inside(context.env, image.env)
    )


def _stored(context: Context, reference: Reference) -> StoredImage:
    try:
        return context.store.find(reference)
    except NotFound:
        from factory.pull import pull  # noqa: PLC0415 - most runs find their image in the store

        registry = context.registry_of(reference)
        return pull(
            reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress
        ).image


def _engine_options(context: Context, image: StoredImage, options: argparse.Namespace) -> Sequence[str]:
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

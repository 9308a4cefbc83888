"""Shared by `singfactory exec`, `run` and `shell`: start the engine with the recipe's GPU option and environment.

Every task of every job goes this way. So it starts no process before the engine, and imports what most runs do not
need only where they do. A test counts the starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.cli import run_options
from factory.cli.context import Context
from factory.cli.run_options import Run, RunOptions
from factory.engine import container
from factory.engine.machine import rights
from factory.errors import IntegrityFailure, NotFound, PlaceUnusable, UsageError
from factory.oci.names import Reference, RegistryAddress
from factory.store.refs import Purged, StoredImage


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
    run_options.declare(parser)


def execute(verb: str, options: RunOptions) -> int:
    """Replace this process by the engine. Returns only after --explain; raises an error otherwise."""
    if options.json and not options.explain:
        raise UsageError("--json needs --explain", fix=f"singfactory {verb} --explain --json {options.ref} ...")
    context = Context(options)
    if verb == "exec" and not options.arguments:
        raise UsageError("exec needs a program", fix=f"singfactory exec {options.ref} python train.py")
    engine = context.program  # first: without an engine there is no point in fetching the image
    reference = context.qualified(context.reference(options.ref))
    image = context.store.find(reference) if options.explain else stored(context, reference)
    parts = run_options.collect(context, image, options)  # its errors come before anything is fetched or copied
    if not options.explain:
        image = in_use(context, image)
    run_options.require_fit(image, context.store.file(image, hashed=False))
    file, stays = _near(context, image, copies=not options.explain)
    start = container.start(
        engine,
        env=context.env,
        recipe_env=image.env,
        options=[word for part in parts for word in part.words],
        cwd=Path.cwd(),
        messages=container.message_options(context.env, quiet=options.quiet, verbose=options.verbose),
    )
    record = options.record or context.settings.path("record")
    run = Run(verb, options.arguments, image, file, stays, engine, rights(), parts, start, record)
    if options.explain:
        from factory.cli.explain import explain  # noqa: PLC0415 - most runs start the engine

        explain(context, run, reference)
        return 0
    _note_left_out(context, start)
    if record is not None or context.settings.switch("job_comment"):
        from factory.cli import run_record  # noqa: PLC0415 - as above

        run_record.keep(context, image, file, [verb, *options.arguments], record)
    return container.become(engine, verb, file, options.arguments, start=start, rights=run.rights)


def _note_left_out(context: Context, start: container.Start) -> None:
    """Say which variables the program does not get. A login session's folder is of interest to few."""
    for name, why in start.left_out.items():
        if context.options.verbose or name != container.SESSION:
            context.progress.note(f"{name}={context.env[name]} is not passed on: {why}")


def _near(context: Context, image: StoredImage, *, copies: bool) -> tuple[Path, str]:
    """Return the copy on the node's local disk in a job, or the store's file and why it stays there.

    copies: False to say only where the copy would be.
    """
    if context.settings.path("stage") is None and not context.env.get("SLURM_TMPDIR"):
        return context.store.file(image), "no local disk is named: no SLURM_TMPDIR, and no setting stage"
    from factory.cli import stage  # noqa: PLC0415 - outside of jobs nothing is copied
    from factory.store import leases  # noqa: PLC0415

    try:
        local = stage.local_disk(context)
        if local is not None and not copies:
            return replace(context.store, root=local, shared=()).blob(image.sif_digest), ""
        if local is not None:
            leases.take(local, image.sif_digest, context.job)
            return stage.copy(context, image, local), ""
    except (PlaceUnusable, IntegrityFailure) as error:
        context.progress.note(f"not staged ({error}); running from {context.store.root}; {error.fix}")
        return context.store.file(image), str(error)
    return context.store.file(image), "no local disk is named"


def in_use(context: Context, image: StoredImage) -> StoredImage:
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


def stored(context: Context, reference: Reference) -> StoredImage:
    """Return the image that a reference means; it is pulled if the store has no record of it."""
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

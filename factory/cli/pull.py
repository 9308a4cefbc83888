"""`singfactory pull`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.context import Context, absolute, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.errors import UsageError
from factory.io.files import readable_size
from factory.oci.names import Reference, RegistryAddress

if TYPE_CHECKING:
    from factory.pull.pull import Pulled
    from factory.store.refs import StoredImage


@dataclass(frozen=True, kw_only=True)
class PullOptions(CommonOptions):
    """What `pull` is given."""

    refs: Sequence[str]
    output: Path | None
    locked: Path | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("refs", metavar="REF", nargs="*", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also put a copy at this path")
    parser.add_argument(
        "--locked", type=Path, metavar="FILE", help="exactly what this lock file names: all of it, or these REFs of it"
    )
    parser.add_argument(
        "--limit-rate", metavar="RATE", help="the most to take of the network, such as 20MB/s, over all connections"
    )
    common_arguments(parser, PullOptions, registry=True, store=True, json=True)


def run(options: PullOptions) -> int:
    """Fetch each image into the store; prints its path and digest."""
    from factory.pull.pull import copy_out  # noqa: PLC0415

    context = Context(options)
    if not options.refs and options.locked is None:
        raise UsageError("no image is named", fix="singfactory pull NAME, or singfactory pull --locked FILE")
    if options.output is not None and len(options.refs) != 1 and not options.output.is_dir():
        raise UsageError("-o takes one image, or a folder", fix="name one image, or make the folder first")
    references = [context.reference(text) for text in options.refs]
    rows = []
    for done in _locked(context, references, options.locked) if options.locked else _named(context, references):
        copied = copy_out(done, options.output.absolute()) if options.output is not None else None
        rows.append({**done.to_json(), **({"copy": str(copied)} if copied else {})})
        if not options.json:
            say(f"{copied or done.path} {done.image.digest}")
            context.progress.note(f"{done.image.recipe}:{done.image.tag} ({done.image.sif_digest}): {_got(done)}")
        _tell_its_name(context, done.image)
    if options.json:
        emit(rows[0] if len(rows) == 1 else rows)
    return 0


def _tell_its_name(context: Context, image: StoredImage) -> None:
    """How to run an image whose bare name means another one, or none."""
    if image.registry and not context.store.is_unqualified(image):
        same = Reference(image.recipe, digest=image.digest, registry=RegistryAddress.parse(image.registry))
        context.progress.note(
            f"{image.recipe} alone does not mean this image; it runs by: singfactory exec {same} -- …"
        )


def _got(done: Pulled) -> str:
    if not done.transferred:
        return "it was here"
    reused = f", {readable_size(done.reused)} were here" if done.reused else ""
    return f"{readable_size(done.transferred)} fetched{reused}"


def _named(context: Context, references: list[Reference]) -> Iterator[Pulled]:
    from factory.pull.pull import pull  # noqa: PLC0415

    for reference in references:
        registry = context.registry_of(reference)
        yield pull(reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress)


def _locked(context: Context, references: list[Reference], path: Path) -> Iterator[Pulled]:
    """What the lock file names; --registry says where else these digests are, a mirror for example."""
    from factory.pull.locked import pull_locked  # noqa: PLC0415
    from factory.records import lockfile  # noqa: PLC0415

    for image in lockfile.select(lockfile.read(path), references, str(path)):
        address = context.address if context.options.registry else absolute(RegistryAddress.parse(image.registry))
        yield pull_locked(
            image,
            open_registry=partial(context.open_registry, address),
            store=context.store,
            arch=context.arch,
            progress=context.progress,
        )

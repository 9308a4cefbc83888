"""`singfactory pull`: fetch images into the store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factory.cli.context import Context, absolute, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say_path
from factory.cli.where import be_modest
from factory.engine import driver
from factory.errors import UsageError
from factory.io.files import readable_size
from factory.oci.names import Reference, RegistryAddress
from factory.pull.locked import pull_locked
from factory.pull.pull import Pulled, copy_out, pull
from factory.records import lockfile
from factory.store.refs import StoredImage


@dataclass(frozen=True)
class PullOptions(CommonOptions):
    """Options of `singfactory pull`."""

    refs: Sequence[str]
    output: Path | None
    force: bool
    locked: Path | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("refs", metavar="REF", nargs="*", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also put a copy at this path")
    parser.add_argument("--force", action="store_true", help="with -o: replace another file at this path")
    parser.add_argument(
        "--locked", type=Path, metavar="FILE", help="pull the digests in this lock file: all images, or only the REFs"
    )
    parser.add_argument("--limit-rate", metavar="RATE", help="download at most this fast in total, such as 20MB/s")
    common_arguments(parser, PullOptions, registry=True, store=True, json=True)


def run(options: PullOptions) -> int:
    """Fetch each image into the store and print its path and digest."""
    context = Context(options)
    be_modest(context.settings, context.env)
    if not options.refs and options.locked is None:
        raise UsageError("pull needs an image", fix="singfactory pull NAME, or singfactory pull --locked FILE")
    if options.output is not None and len(options.refs) != 1 and not options.output.is_dir():
        raise UsageError(
            f"-o {options.output} is not a folder, so it can hold one image only",
            fix=f"pull one image, or create the folder first: mkdir {options.output}",
        )
    references = [context.reference(text) for text in options.refs]
    rows = []
    for done in _locked(context, references, options.locked) if options.locked else _named(context, references):
        copied = None
        if options.output is not None:
            copied = copy_out(done, options.output.absolute(), context.progress, force=options.force)
        rows.append({**done.to_json(), **({"copy": str(copied)} if copied else {})})
        if not options.json:
            say_path(copied or done.path, f" {done.image.digest}")
            context.progress.note(f"{done.image.recipe}:{done.image.tag} ({done.image.sif_digest}): {_fetched(done)}")
            _note_driver(context, done.image)
        _note_name(context, done.image)
    if options.json:
        emit(rows[0] if len(rows) == 1 else rows)
    return 0


def _note_driver(context: Context, image: StoredImage) -> None:
    """Say which driver the image needs, and whether this machine has an older one."""
    if image.gpu == "nvidia" and image.needs.driver:
        here = driver.nvidia_driver()
        old = f"; this machine has {here}" if driver.too_old(image.needs, here) else ""
        context.progress.note(f"{image.recipe} needs {image.needs.in_words()}{old}")


def _note_name(context: Context, image: StoredImage) -> None:
    """Say how to run the image if its bare name means another image, or none."""
    if image.registry and not context.store.is_unqualified(image):
        same = Reference(image.recipe, digest=image.digest, registry=RegistryAddress.parse(image.registry))
        context.progress.note(
            f"the name {image.recipe} alone does not mean this image; run it with: singfactory exec {same} …"
        )


def _fetched(done: Pulled) -> str:
    if not done.transferred:
        return "already in the store"
    reused = f", {readable_size(done.reused)} reused" if done.reused else ""
    return f"{readable_size(done.transferred)} fetched{reused}"


def _named(context: Context, references: list[Reference]) -> Iterator[Pulled]:
    for reference in references:
        registry = context.registry_of(reference)
        yield pull(reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress)


def _locked(context: Context, references: list[Reference], path: Path) -> Iterator[Pulled]:
    """Pull the images of a lock file. --registry names another place to fetch them from, such as a mirror."""
    for image in lockfile.select(lockfile.read(path), references, str(path)):
        address = context.address if context.options.registry else absolute(RegistryAddress.parse(image.registry))
        yield pull_locked(
            image,
            open_registry=partial(context.open_registry, address),
            store=context.store,
            arch=context.arch,
            progress=context.progress,
        )

"""`singfactory diff`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.delta.index import ChunkIndex
from factory.io.files import readable_size
from factory.pull.resolve import resolve
from factory.records.compare import changed_parts, index_of, index_of_file, package_lines, packages_of, shared_bytes
from factory.records.release import Release
from factory.registry.protocol import Registry
from factory.sif.packages import PackageChanges, Packages, package_changes


@dataclass(frozen=True)
class DiffOptions(CommonOptions):
    """Options of `singfactory diff`."""

    before: str
    after: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("before", metavar="OLD", help="NAME, NAME:TAG or NAME@sha256:HEX")
    parser.add_argument("after", metavar="NEW", help="the image to compare with it")
    common_arguments(parser, DiffOptions, registry=True, store=True, json=True)


def run(options: DiffOptions) -> int:
    """Print the differences: inputs, packages, and the bytes that an update from the first to the second downloads."""
    context = Context(options)
    (before, first), (after, second) = (_release(context, text) for text in (options.before, options.after))
    rows = changed_parts(before, after)
    packages = _packages(packages_of(before, first), packages_of(after, second))
    shared = shared_bytes(_index(context, before, first), _index(context, after, second))
    if options.json:
        sizes = {"reused": shared.reused, "missing": shared.missing} if shared else None
        changes = asdict(packages) if packages else None
        emit({"changed": {name: [old, new] for name, old, new in rows}, "packages": changes, "bytes": sizes})
        return 0
    for name, old, new in rows:
        say(f"{name:12} {_short(old)} -> {_short(new)}")
    if not rows:
        say("no difference")
    for line in package_lines(packages) if packages else ():
        say(f"{'package':12} {line}")
    if packages is None:
        context.progress.note("packages are not compared: one of the images has no package list")
    if shared is not None:
        new, known, total = map(readable_size, (shared.missing, shared.reused, after.sif.size))
        say(f"{'bytes':12} {new} of {total} are new, {known} are shared")
    else:
        context.progress.note("the update size is unknown: pull both images and try again")
    return 0


def _release(context: Context, text: str) -> tuple[Release, Registry]:
    reference = context.reference(text)
    registry = context.registry_of(reference)
    return resolve(reference, registry, context.arch).release, registry


def _index(context: Context, release: Release, registry: Registry) -> ChunkIndex | None:
    """The chunk index from the registry, else from the stored image, else None."""
    here = context.store.where(release.sif)
    return index_of(release, registry) or (index_of_file(here, context.progress) if here is not None else None)


def _packages(before: Packages | None, after: Packages | None) -> PackageChanges | None:
    return package_changes(before, after) if before is not None and after is not None else None


def _short(text: str) -> str:
    return (text[:12] if len(text) == 64 else text) or "-"  # noqa: PLR2004 - a SHA-256 in hexadecimal

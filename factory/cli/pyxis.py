"""`singfactory pyxis`: the importer of NVIDIA's pyxis, which starts it for `srun --container-image=…`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.obtain import obtain
from factory.cli.options import CommonOptions
from factory.cli.terminal import say_path
from factory.io import files
from factory.jobs import pyxis
from factory.store.squashfs import squashfs_of


@dataclass(frozen=True)
class GetOptions(CommonOptions):
    """Options of `singfactory pyxis get`."""

    operation: str
    uri: str


@dataclass(frozen=True)
class ReleaseOptions(CommonOptions):
    """Options of `singfactory pyxis release`."""

    operation: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    operations = parser.add_subparsers(dest="operation", metavar="OPERATION", required=True)
    get = operations.add_parser("get", help="print the squashfs of an image", allow_abbrev=False)
    get.add_argument("uri", metavar="URI", help="docker://oras://NAME:TAG, or another image, which enroot imports")
    common_arguments(get, GetOptions, registry=True, store=True)
    release = operations.add_parser("release", help="remove what enroot imported for this step", allow_abbrev=False)
    common_arguments(release, ReleaseOptions)


def run(options: GetOptions | ReleaseOptions) -> int:
    """Carry out one operation of the protocol. An image stays in use, for `store gc`, until the SLURM job has ended."""
    context = Context(options)
    if isinstance(options, ReleaseOptions):
        path = pyxis.step_file(context.env)
        if path is not None:
            files.remove_file(path)
        return 0
    reference = pyxis.reference_in(options.uri, context.configured)
    if not reference:
        say_path(pyxis.import_with_enroot(options.uri, context.env, _log))
        return 0
    image = obtain(context, reference)
    context.store.lease(image.sif_digest, context.job, process=False)
    say_path(squashfs_of(context.store, image, context.progress))
    return 0


def _log(block: bytes) -> None:
    sys.stderr.buffer.write(block)
    sys.stderr.flush()

"""`singfactory export`: files with which Jupyter, Snakemake, Nextflow and others use an image by its digest."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.obtain import launcher, obtain
from factory.cli.options import CommonOptions
from factory.cli.terminal import say, say_path
from factory.errors import UsageError
from factory.jobs import exports
from factory.oci.digest import Digest
from factory.sif.tree import FilesUnknown, open_tree
from factory.sif.variables import variables
from factory.store import pins
from factory.store.refs import StoredImage
from factory.store.squashfs import squashfs_of

_KERNEL_NAME = re.compile(r"[a-z0-9._-]{1,100}", re.ASCII)  # jupyter_client.kernelspec, _kernel_name_pat


@dataclass(frozen=True)
class FolderOptions(CommonOptions):
    """Options of `export snakemake` and `export nextflow`."""

    tool: str
    ref: str
    to: Path


@dataclass(frozen=True)
class KernelOptions(CommonOptions):
    """Options of `export jupyter`."""

    tool: str
    ref: str
    to: Path | None
    name: str
    bind: Sequence[str]


@dataclass(frozen=True)
class EdfOptions(CommonOptions):
    """Options of `export edf`."""

    tool: str
    ref: str
    to: Path | None
    bind: Sequence[str]
    workdir: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    tools = parser.add_subparsers(dest="tool", metavar="TOOL", required=True)
    kinds: dict[str, type[CommonOptions]] = {
        "jupyter": KernelOptions,
        "snakemake": FolderOptions,
        "nextflow": FolderOptions,
        "edf": EdfOptions,
    }
    for name, text in (
        ("jupyter", "write a kernel that runs in the image; print its file"),
        ("snakemake", "link the image into a folder for --apptainer-prefix; print what `container:` must say"),
        ("nextflow", "link the image into a folder for NXF_APPTAINER_CACHEDIR; print what `container` must say"),
        ("edf", "print an environment definition file for CSCS's container engine"),
    ):
        tool = tools.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        tool.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX; pulled if it is not stored")
        _own_arguments(tool, name)
        common_arguments(tool, kinds[name], registry=True, store=True)


def _own_arguments(tool: argparse.ArgumentParser, name: str) -> None:
    if name in exports.NAMES:
        tool.add_argument("--to", type=Path, required=True, metavar="DIR", help="the tool's folder of images")
        return
    tool.add_argument("-B", "--bind", action="append", default=[], metavar="SRC[:DEST]", help="bind a path")
    if name == "jupyter":
        tool.add_argument("--name", default="", metavar="NAME", help="the kernel's name (default: NAME-TAG)")
        where = "the folder of kernels (default: kernels in $JUPYTER_DATA_DIR, ~/.local/share/jupyter)"
        tool.add_argument("--to", type=Path, metavar="DIR", help=where)
    else:
        tool.add_argument("--workdir", default="", metavar="DIR", help="the working folder in the image")
        tool.add_argument("--to", type=Path, metavar="FILE", help="write this file, such as ~/.edf/NAME.toml")


def run(options: FolderOptions | KernelOptions | EdfOptions) -> int:
    """Write what the tool needs."""
    context = Context(options)
    image = obtain(context, options.ref)
    if isinstance(options, FolderOptions):
        return _folder(context, image, options)
    return _kernel(context, image, options) if isinstance(options, KernelOptions) else _edf(context, image, options)


def _folder(context: Context, image: StoredImage, options: FolderOptions) -> int:
    link = exports.fill(options.to.absolute(), options.tool, image, context.store.file(image))
    _pin(context, image.sif_digest, link)
    context.progress.note(f"{link} -> {image.recipe}:{image.tag} (SIF {image.sif_digest})")
    say(exports.address(image))
    return 0


def _kernel(context: Context, image: StoredImage, options: KernelOptions) -> int:
    name = options.name or f"{image.recipe}-{image.tag}".lower()
    if _KERNEL_NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is not the name of a kernel", fix="write --name NAME, of a-z 0-9 . _ -")
    folder = (options.to or _kernels(context.env)).absolute() / name
    binds = [word for bind in options.bind for word in ("--bind", bind)]
    exports.write_own(folder / "kernel.json", exports.kernel(image, launcher(context), binds), '"singfactory"')
    _pin(context, image.sif_digest, folder / "kernel.json")
    say_path(folder / "kernel.json")
    return 0


def _kernels(env: Mapping[str, str]) -> Path:
    """The user's kernels (jupyter_core.paths.jupyter_data_dir)."""
    data = Path(env.get("XDG_DATA_HOME") or Path(env.get("HOME") or "/") / ".local/share")
    return Path(env.get("JUPYTER_DATA_DIR") or data / "jupyter") / "kernels"


def _edf(context: Context, image: StoredImage, options: EdfOptions) -> int:
    squashfs = squashfs_of(context.store, image, context.progress)
    mounts = [bind if ":" in bind else f"{bind}:{bind}" for bind in options.bind]
    text = exports.edf(image, squashfs, env=_variables(context, image), mounts=mounts, workdir=options.workdir)
    if options.to is None:
        sys.stdout.write(text)
        return 0
    path = options.to.absolute()
    exports.write_own(path, text, "written by singfactory export edf")
    _pin(context, image.sif_digest, path)
    say_path(path)
    return 0


def _variables(context: Context, image: StoredImage) -> dict[str, str]:
    """Return the image's own variables, which a squashfs alone does not set, and the recipe's."""
    found: dict[str, str] = {}
    try:
        with open_tree(context.store.file(image)) as tree:
            found = {name: one.value for name, one in variables(tree).items() if "$" not in one.value}
    except FilesUnknown as error:
        context.progress.note(f"the image's own variables are left out: {error.why}")
    own = {name: text for name, text in found.items() if not name.startswith(("APPTAINER", "SINGULARITY"))}
    return {**own, **image.env}


def _pin(context: Context, digest: Digest, path: Path) -> None:
    if not pins.pin(context.store, digest, path):
        context.progress.note(f"{context.store.root} cannot be written: store gc may remove the image")

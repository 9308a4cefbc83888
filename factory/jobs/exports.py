"""What other tools need to use a stored image by its digest: file names in their image folders, kernels, EDF files.

- Snakemake (snakemake/deployment/singularity.py, ``Image.path``): ``<prefix>/<md5 of the address>.simg``
- Nextflow (nextflow/container/SingularityCache.groovy, ``simpleName``): ``<folder>/<address, / and : as ->.img``
- Jupyter (jupyter_client, "Making kernels for Jupyter"): ``kernels/<name>/kernel.json``
- CSCS's container engine ("EDF reference"): a TOML file; a ``$`` in a value is written ``$$``
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from factory.errors import FactoryError, PlaceUnusable
from factory.io import files, plain
from factory.jobs.module_text import Launcher
from factory.store.refs import StoredImage

_LIMIT = 1 << 20  # bytes of a file of ours
_KERNEL = "python -m ipykernel_launcher -f"


def address(image: StoredImage) -> str:
    """Return the address of an image for workflow languages: ``oras://…@sha256:…``.

    An image without a registry, or from a folder, has one that no tool can fetch, and that names it all the same.
    """
    where = image.pinned.registry
    if where is None or where.is_folder:
        return f"singfactory://{image.recipe}@{image.digest}"
    return f"oras://{where.host}/{where.repository(image.recipe)}@{image.digest}"


def snakemake_name(image: str) -> str:
    """Return the name of the file in ``--apptainer-prefix`` that Snakemake looks for instead of pulling an address."""
    return hashlib.md5(image.encode(), usedforsecurity=False).hexdigest() + ".simg"


def nextflow_name(image: str) -> str:
    """Return the name of the file in Nextflow's library or cache folder that it looks for instead of pulling."""
    _, _, name = image.rpartition("://")
    suffix = ".img"
    if ".sif:" in name:
        name, suffix = name.replace(".sif:", "-"), ".sif"
    elif name.endswith(".sif"):
        name, suffix = name.removesuffix(".sif"), ".sif"
    return name.replace(":", "-").replace("/", "-") + suffix


NAMES: Mapping[str, Callable[[str], str]] = {"snakemake": snakemake_name, "nextflow": nextflow_name}


def fill(folder: Path, tool: str, image: StoredImage, blob: Path) -> Path:
    """Link an image into a tool's image folder; return the link. Raises PlaceUnusable for another file in its place."""
    link = files.make_folder(folder) / NAMES[tool](address(image))
    try:
        target = str(link.readlink())
    except FileNotFoundError:
        target = ""
    except OSError as error:
        raise _in_the_way(link, "it is not a link that singfactory made") from error
    if target and image.sif_digest.hex not in target:
        raise _in_the_way(link, f"it leads to {target}")
    if target != str(blob):
        files.link_atomically(link, str(blob))
    return link


def kernel(image: StoredImage, launcher: Launcher, options: Sequence[str]) -> str:
    """Return a kernel specification (jupyter_client, "Kernel specs"). options: of `singfactory exec`.

    The shell binds the folder of the connection file, which can be one that images do not see, such as /run/user/1000.
    """
    start = [shlex.quote(word) for word in launcher.exec(image, *options)]
    bind = '--bind "${1%/*}"'
    script = f'exec {start[0]} exec {bind} {" ".join(start[2:])} {_KERNEL} "$1"'
    value = {
        "argv": ["/bin/sh", "-c", script, "singfactory-kernel", "{connection_file}"],
        "display_name": f"{image.recipe} {image.tag} ({image.digest.hex[:12]})",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"singfactory": {"image": str(image.pinned), "sif_digest": str(image.sif_digest)}},
    }
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def edf(image: StoredImage, squashfs: Path, *, env: Mapping[str, str], mounts: Sequence[str], workdir: str = "") -> str:
    """Return an EDF file. env: variables, which are taken literally; mounts: SOURCE:TARGET, where $NAME is expanded."""
    lines = [
        f"# {image.recipe} {image.tag}, written by singfactory export edf",
        f"# image {image.digest}",
        f"# SIF {image.sif_digest}",
        f"image = {_toml(_literal(str(squashfs)))}",
        f"mounts = [{', '.join(map(_toml, mounts))}]" if mounts else "",
        f"workdir = {_toml(workdir)}" if workdir else "",
        *(["", "[env]", *(f"{name} = {_toml(_literal(text))}" for name, text in sorted(env.items()))] if env else []),
    ]
    return "\n".join(line for at, line in enumerate(lines) if line or (at and lines[at + 1 :][:1] == ["[env]"])) + "\n"


def write_own(path: Path, text: str, mark: str) -> None:
    """Write a file unless another one, without this mark, is there. Raises PlaceUnusable."""
    try:
        content = plain.read_plain(path, _LIMIT)
    except FileNotFoundError:
        content = b""
    except (OSError, FactoryError) as error:
        raise _in_the_way(path, "it is not a file that singfactory wrote") from error
    if content and mark.encode() not in content:
        raise _in_the_way(path, "it is not a file that singfactory wrote")
    files.make_folder(path.parent)
    files.atomic_write(path, text.encode("utf-8", "surrogateescape"))


def _literal(text: str) -> str:
    return text.replace("$", "$$")


def _toml(text: str) -> str:
    """A basic string (TOML 1.0): like JSON's, but DEL is escaped, and nothing above it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _in_the_way(path: Path, why: str) -> PlaceUnusable:
    return PlaceUnusable(f"{path} is in the way", why=why, fix="move it, or name another place with --to")

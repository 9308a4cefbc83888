"""Walk recipes of images on Docker Hub to the end without Docker Hub: python -m benchmarks.mirrored [RECIPE …].

A site without internet copies base images to a registry of its own and names it under [mirrors]. Here a stand-in of
the base is made from `python-3.11` and PyPI's wheels, with the name, the folders and the environment of the real image,
and pushed to such a registry. The recipes are those of this repository, unmodified. For each: `update` pins the digest,
`make` builds, tests and publishes, `pull` fetches, `exec` runs. Needs some 40 GB of disk in --folder; wheels come from
the package index that pip uses here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import OURS, ROOT
from benchmarks.measure import Report, machine, markdown, measured
from factory.io.plain import digest_of
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.registry.protocol import Manifest
from factory.sif.header import read_sif_header
from tests.servers import docker_registry, tool

BASE, COMPILER = "python-3.11", "compiler"
_CONFIG, _LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
_COMPILER = {
    "image.def": "Bootstrap: recipe\nFrom: {{ base }}\n\n%post\n    apt-get update\n"
    "    apt-get install --yes --no-install-recommends g++\n",
    "recipe.toml": f'[recipe]\nname = "{COMPILER}"\nversion = "1"\n[build]\nbase = "recipe://{BASE}"\n',
}


@dataclass(frozen=True)
class StandIn:
    """A stand-in. name, tag: of the real image on Docker Hub. made_of: the recipe whose files it begins with.

    fill: puts the rest into its root folder. env: its environment, as the real image's. shown: a command for `exec`.
    """

    name: str
    tag: str
    made_of: str
    fill: Callable[[Path], None]
    env: Mapping[str, str]
    shown: tuple[str, ...]


def _wheels(target: Path, *requirements: str) -> None:
    """Install wheels for Python 3.11 into a folder."""
    options = ["--quiet", "--no-cache-dir", "--only-binary=:all:", "--python-version=3.11", f"--target={target}"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *requirements], check=True)


def _conda(root: Path) -> None:
    """Make /opt/conda, where the real image has its Python and PyTorch."""
    conda = root / "opt/conda"
    (root / "opt/python").rename(conda)
    for path in (*(conda / "bin").iterdir(), conda / "pyvenv.cfg"):
        if path.is_file() and not path.is_symlink():
            path.write_text(path.read_text().replace("/opt/python", "/opt/conda"))
    _wheels(conda / "lib/python3.11/site-packages", "torch==2.1.2", "torchvision==0.16.2", "numpy==1.26.4")


def _toolkit(root: Path) -> None:
    """Make /usr/local/cuda, where the real image has CUDA's compiler, headers and libraries."""
    parts = ("nvcc", "crt", "runtime", "cccl")
    packed = root / "packed"
    _wheels(packed, *(f"nvidia-cuda-{part}==13.0.*" for part in parts), "nvidia-nvvm==13.0.*")
    (made,) = (packed / "nvidia").glob("cu13")
    made.rename(root / "usr/local/cuda")
    (root / "usr/local/cuda/lib64").symlink_to("lib")
    for library in (root / "usr/local/cuda/lib").glob("lib*.so.*"):
        link = library.with_name(library.name.partition(".so")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    shutil.rmtree(packed)


def _nothing(_: Path) -> None:
    """Leave the root folder as it is."""


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NVIDIA = {
    "LD_LIBRARY_PATH": "/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}
STAND_INS = {
    "pytorch-2.1": StandIn(
        "pytorch/pytorch",
        "2.1.2-cuda12.1-cudnn8-runtime",
        BASE,
        _conda,
        {**_NVIDIA, "PATH": f"/opt/conda/bin:/usr/local/nvidia/bin:/usr/local/cuda/bin:{_PATH}"},
        ("python", "-c", "import torch; print(torch.__version__, torch.rand(3) @ torch.rand(3))"),
    ),
    "cuda-devel": StandIn(
        "nvidia/cuda",
        "13.0.1-devel-ubuntu24.04",
        COMPILER,
        _toolkit,
        {**_NVIDIA, "PATH": f"/usr/local/nvidia/bin:/usr/local/cuda/bin:{_PATH}", "CUDA_VERSION": "13.0.1"},
        ("nvcc", "--version"),
    ),
    "heat": StandIn("library/debian", "bookworm-slim", BASE, _nothing, {"PATH": _PATH}, ("heat", "33", "1000")),
}


def main() -> None:
    """Walk the recipes, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"default: {' '.join(STAND_INS)}")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="write the report to this file, too")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="singfactory-mirrored-", dir=options.folder)
        folder = Path(stack.enter_context(made))
        host = stack.enter_context(docker_registry(folder / "registry")).host
        site = Site(folder, host)
        rows = [row for name in options.recipes or STAND_INS for row in site.walk(name, STAND_INS[name])]
        report = Report(options.output)
        report.add(f"# Recipes of Docker Hub's images, from a mirror: {machine()}")
        report.add(markdown(["recipe", "step", "wall s", "what it says"], rows))


class Site:
    """A site with a registry: below /hub are its copies of Docker Hub's images, below /images its own."""

    def __init__(self, folder: Path, host: str) -> None:
        self._folder, self._host = folder, host
        self._project = folder / "project"
        (folder / "tmp").mkdir()
        own = {name: text for name, text in os.environ.items() if name == "SINGFACTORY_ENGINE" or "SINGF" not in name}
        self._env = {
            **own,
            "PYTHONPATH": str(ROOT),
            "SINGFACTORY_TMPDIR": str(folder / "tmp"),
            "SINGFACTORY_STORE": str(folder / "store"),
            "SINGFACTORY_REGISTRY": f"http://{host}/images",
        }
        for name in (BASE, *STAND_INS):
            ignored = shutil.ignore_patterns("base.lock")  # it pins the real image
            shutil.copytree(ROOT / "recipes" / name, self._project / "recipes" / name, ignore=ignored)
        for name, text in _COMPILER.items():
            path = self._project / "recipes" / COMPILER / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (self._project / "factory.toml").write_text(f'[mirrors]\n"docker.io" = "http://{host}/hub"\n')

    def walk(self, recipe: str, stand_in: StandIn) -> list[list[str]]:
        """Push the stand-in, and do with the recipe what a maintainer and a user do. Return rows of the table."""
        started = time.monotonic()
        size = self._push(recipe, stand_in)
        rows = [[recipe, "stand-in pushed", f"{time.monotonic() - started:.1f}", f"{size / 1e6:.0f} MB"]]
        for arguments in (
            ["update", recipe],
            ["make", recipe],
            ["pull", recipe],
            ["exec", recipe, "--", *stand_in.shown],
        ):
            output = self._folder / "output.txt"
            output.unlink(missing_ok=True)
            cost = measured([*OURS, *arguments], self._project, self._env, output)
            said = [line.strip() for line in output.read_text().splitlines() if line.strip()]
            rows.append([recipe, arguments[0], f"{cost.wall:.1f}", "; ".join(said)[-200:].replace("|", " ")])
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
        return rows

    def _push(self, recipe: str, stand_in: StandIn) -> int:
        """Make a stand-in and push it as an image of one layer. Returns the layer's size in bytes."""
        if not self._candidate(stand_in.made_of).exists():
            names = dict.fromkeys((BASE, stand_in.made_of))
            subprocess.run([*OURS, "make", "--quiet", *names], cwd=self._project, env=self._env, check=True)
        root, layer = self._folder / f"root-{recipe}", self._folder / f"{recipe}.tar"
        image = self._candidate(stand_in.made_of)
        with image.open("rb") as file:
            system = read_sif_header(file, image.stat().st_size, image.name).primary_system
        offset = str(system.offset) if system else ""
        unpack = [tool("unsquashfs"), "-quiet", "-no-progress", "-offset", offset, "-dest", str(root), str(image)]
        subprocess.run(unpack, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(root / ".singularity.d")
        for path in root.iterdir():
            if path.is_symlink() and str(path.readlink()).startswith(".singularity.d/"):
                path.unlink()
        stand_in.fill(root)
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(root, ".")
        shutil.rmtree(root)
        return self._push_layer(stand_in, layer)

    def _push_layer(self, stand_in: StandIn, layer: Path) -> int:
        digest, size = digest_of(layer)
        values = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"{name}={text}" for name, text in stand_in.env.items()], "Cmd": ["/bin/bash"]},
            "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
        }
        config = json.dumps(values).encode()
        registry = open_registry(RegistryAddress(self._host, "hub", plain_http=True))
        described = Descriptor(_LAYER, digest, size)
        registry.push_blob(stand_in.name, layer, described, Silent())
        registry.push_blob(stand_in.name, config, Descriptor.of(_CONFIG, config), Silent())
        image = Manifest(Descriptor.of(_CONFIG, config), (described,)).raw()
        registry.push_manifest(stand_in.name, image, stand_in.tag)
        layer.unlink()
        return size

    def _candidate(self, recipe: str) -> Path:
        return self._project / f".singfactory/candidates/{recipe}-amd64/image.sif"


if __name__ == "__main__":
    main()

"""Images for the benchmarks: SIF headers followed by random bytes, with all records of a release.

Registries do not read the content; Apptainer reads the headers of a pulled image.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from factory.io.plain import digest_of
from factory.oci.digest import Descriptor, Digest
from factory.recipes.load import load_recipe
from factory.records.candidate import Candidate
from factory.records.inputs import gather
from factory.records.report import TestReport, TestResult
from factory.registry.protocol import SIF_LAYER
from tests.unit.delta.images import Part, Squashfs, sif

ROOT = Path(__file__).resolve().parent.parent
NAME = "image"
OURS = (sys.executable, "-m", "factory.cli")
_BLOCK = 1_000_000
_RECIPE = f"""
[recipe]
name = "{NAME}"
version = "1.0"
summary = "random bytes"

[build]
base = "docker://example.org/none:1"
"""


@dataclass(frozen=True)
class Image:
    """A published image. space: the namespace in the registry, without the host."""

    space: str
    digest: Digest
    size: int

    @property
    def blob(self) -> str:
        """Return the path of its blob on the registry."""
        return f"/v2/{self.space}/{NAME}/blobs/{self.digest}"

    @property
    def label(self) -> str:
        """Return its size in readable form."""
        return f"{self.size / 1e6:.0f} MB"


def environment(home: Path) -> dict[str, str]:
    """Return the environment of all clients: a separate home, this tree's singfactory without settings, no proxy."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SINGFACTORY_")}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def prepare(project: Path, size: int) -> Path:
    """Create a project with one tested candidate of size bytes. Return the candidate's file."""
    recipe = project / "recipes" / NAME
    recipe.mkdir(parents=True)
    (recipe / "recipe.toml").write_text(_RECIPE)
    (recipe / "image.def").write_text("Bootstrap: docker\nFrom: {{ base }}\n")
    (project / "factory.toml").write_text("")
    place = project / f".singfactory/candidates/{NAME}-amd64"
    place.mkdir(parents=True)
    write(place / "image.sif", size)
    digest, length = digest_of(place / "image.sif")
    layer = Descriptor(SIF_LAYER, digest, length)
    inputs = gather(load_recipe(recipe), "amd64", "", "none")
    made = Candidate(place, NAME, "1.0", "amd64", layer, "2026-01-01T00:00:00Z", 1.0, "none", inputs.parts)
    replace(made, key=str(inputs.key)).save()
    passed = TestResult("none", "passed", 0.0)
    TestReport(NAME, digest, "none", "", "2026-01-01T00:00:00Z", (passed,)).save(place)
    return place / "image.sif"


def write(path: Path, size: int) -> None:
    """Write a SIF of size bytes with one partition: an empty squashfs followed by random bytes."""
    system = Squashfs().build()
    before = len(sif(Part(b"")))
    with path.open("wb") as file:
        file.write(sif(Part(system, size=size - before)))
        for start in range(file.tell(), size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))


def publish(folder: Path, host: str, space: str, size: int, env: Mapping[str, str]) -> Image:
    """Create an image and publish it into an unused namespace of the registry at host (plain HTTP)."""
    project = folder / space
    digest, length = digest_of(prepare(project, size))
    arguments = [*OURS, "publish", NAME, "--registry", f"http://{host}/{space}"]
    subprocess.run(arguments, cwd=project, env=dict(env), check=True, stdout=subprocess.DEVNULL)
    return Image(space, digest, length)

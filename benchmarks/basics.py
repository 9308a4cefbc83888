"""Publish, pull and path against the clients that people would use otherwise, in one run: make bench.

A file of random bytes stands for the image: a registry does not look inside. Each client's wall time, CPU time
and peak memory are measured in rounds that alternate; what is printed are medians, and ratios to singfactory.
Nothing here is a test: times depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from factory.candidate import Candidate  # noqa: E402 - the tree that this file is in, not an installed one
from factory.digest import Descriptor  # noqa: E402
from factory.inputs import gather  # noqa: E402
from factory.io.files import digest_of  # noqa: E402
from factory.recipes.load import load_recipe  # noqa: E402
from factory.registry.protocol import SIF_LAYER  # noqa: E402
from factory.report import TestReport, TestResult  # noqa: E402
from tests.servers import docker_registry, tool  # noqa: E402

RECIPE = """
[recipe]
name = "image"
version = "1.0"
summary = "random bytes"

[build]
base = "docker://example.org/none:1"
"""


@dataclass(frozen=True)
class Cost:
    """Of one command: wall and CPU seconds, peak resident memory in MB."""

    wall: float
    cpu: float
    memory: float


def measured(arguments: list[str], cwd: Path, env: dict[str, str]) -> Cost:
    """Run a command to its end.

    The peak is read from the process itself (VmHWM): what wait4 tells includes the parent's own memory.
    """
    started, peak = time.monotonic(), 0
    with (cwd / "output").open("wb") as output:
        process = subprocess.Popen(arguments, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT)
        ended, status, used = 0, 0, None
        while not ended:
            peak = max(peak, _high_water(process.pid))
            time.sleep(0.005)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or used is None:
        sys.exit(f"{arguments}: {(cwd / 'output').read_text()}")
    return Cost(time.monotonic() - started, used.ru_utime + used.ru_stime, peak / 1000)


def _high_water(pid: int) -> int:
    """Peak resident memory of a running process in kB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def table(title: str, costs: dict[str, list[Cost]]) -> None:
    """Medians, with the ratio of each wall time to the first row's."""
    print(f"\n{title}\n{'':34} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'wall ratio':>11}")
    first = statistics.median(cost.wall for cost in next(iter(costs.values())))
    for name, rounds in costs.items():
        wall, cpu = (statistics.median(getattr(cost, what) for cost in rounds) for what in ("wall", "cpu"))
        memory = max(cost.memory for cost in rounds)
        print(f"{name:34} {wall:8.2f} {cpu:8.2f} {memory:8.0f} {wall / first:11.2f}")


def prepare(folder: Path, size: int) -> Path:
    """A project with one tested candidate of random bytes."""
    recipe = folder / "recipes/image"
    recipe.mkdir(parents=True)
    (recipe / "recipe.toml").write_text(RECIPE)
    (recipe / "image.def").write_text("Bootstrap: docker\nFrom: {{ base }}\n")
    (folder / "factory.toml").write_text("")
    place = folder / ".singfactory/candidates/image-amd64"
    place.mkdir(parents=True)
    with (place / "image.sif").open("wb") as file:
        for _ in range(size // 1_000_000):
            file.write(os.urandom(1_000_000))
    digest, length = digest_of(place / "image.sif")
    sif = Descriptor(SIF_LAYER, digest, length)
    inputs = gather(load_recipe(recipe), "amd64", "", "none")
    made = Candidate(place, "image", "1.0", "amd64", sif, "2026-01-01T00:00:00Z", 1.0, "none", inputs.parts)
    replace(made, key=str(inputs.key)).save()
    passed = TestResult("none", "passed", 0.0)
    TestReport("image", digest, "none", "", "2026-01-01T00:00:00Z", (passed,)).save(place)
    return place / "image.sif"


def main() -> int:
    """Run all rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=400, help="MB of the image")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="singfactory-bench-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        image = prepare(folder / "project", options.size * 1_000_000)
        run(folder, image, server.host, options.rounds)
    return 0


def run(folder: Path, image: Path, host: str, rounds: int) -> None:
    """All measurements of one image; the steps of a round follow each other, so the clients alternate."""
    project, store, layouts = folder / "project", folder / "store", folder / "layouts"
    env = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), "SINGFACTORY_STORE": str(store)}
    costs: dict[str, list[Cost]] = {}

    def step(name: str, cwd: Path, *command: str) -> None:
        costs.setdefault(name, []).append(measured(list(command), cwd, env))

    for number in range(rounds):
        ours = [sys.executable, "-m", "factory.cli"]
        space, other = f"http://{host}/ours{number}", f"{host}/oras{number}/image:1"
        step("singfactory publish (registry)", project, *ours, "publish", "image", "--registry", space)
        step("oras push", image.parent, tool("oras"), "push", "--plain-http", other, image.name)
        step("singfactory publish (oci:)", project, *ours, "publish", "image", "--registry", f"oci:{layouts}")
        step("singfactory pull (registry)", project, *ours, "pull", "image", "--registry", space)
        step("singfactory pull, again", project, *ours, "pull", "image", "--registry", space)
        step("singfactory path", project, *ours, "path", "image")
        shutil.rmtree(store)
        step("oras pull", project, tool("oras"), "pull", "--plain-http", other, "-o", str(folder / "oras"))
        shutil.rmtree(folder / "oras")
        step("singfactory pull (oci:)", project, *ours, "pull", "image", "--registry", f"oci:{layouts}")
        shutil.rmtree(store)
        shutil.rmtree(layouts)
    size = image.stat().st_size / 1e6
    print(f"{size:.0f} MB, {rounds} rounds, over loopback; oras verifies digests as we do; we fsync what we store")
    for title, words in {
        "publish": ("publish", "push"),
        "pull": ("pull (", "oras pull"),
        "there": ("again", "path"),
    }.items():
        table(title, {name: spent for name, spent in costs.items() if any(word in name for word in words)})


if __name__ == "__main__":
    sys.exit(main())

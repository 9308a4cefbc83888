"""Compare publish, pull and path with oras: python -m benchmarks.basics.

Measures wall time, CPU time and peak memory of each client in alternating rounds, and prints medians and ratios to
singfactory. benchmarks.pull compares pulls with more clients and over slower networks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.images import NAME, OURS, environment, prepare
from benchmarks.measure import Costs, Report, cost_table, machine, measured
from factory.recipes.quantities import parse_size
from tests.servers import docker_registry, tool


def main() -> int:
    """Run all rounds and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.basics", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=400_000_000, help="size of the image, such as 400MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="singfactory-bench-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        image = prepare(folder / "project", options.size)
        costs = run(folder, image, server.host, options.rounds)
    report = Report(options.output)
    report.add(
        f"# Basics\n\n{machine()}. {options.size / 1e6:.0f} MB, {options.rounds} rounds, over loopback."
        " oras verifies digests as we do; we fsync what we store."
    )
    for title, words in {
        "Publish": ("publish", "push"),
        "Pull": ("pull (", "oras pull"),
        "What is there": ("again", "path"),
    }.items():
        report.add(f"## {title}")
        report.add(cost_table({name: spent for name, spent in costs.items() if any(word in name for word in words)}))
    return 0


def run(folder: Path, image: Path, host: str, rounds: int) -> Costs:
    """Run all measurements of one image. The clients alternate within each round."""
    project, store, layouts = folder / "project", folder / "store", folder / "layouts"
    env = {**environment(folder / "home"), "SINGFACTORY_STORE": str(store)}
    costs: Costs = {}

    def step(name: str, cwd: Path, *command: str) -> None:
        os.sync()
        costs.setdefault(name, []).append(measured(command, cwd, env))

    for number in range(rounds):
        space, other = f"http://{host}/ours{number}", f"{host}/oras{number}/image:1"
        step("singfactory publish (registry)", project, *OURS, "publish", NAME, "--registry", space)
        step("oras push", image.parent, tool("oras"), "push", "--plain-http", other, image.name)
        step("singfactory publish (oci:)", project, *OURS, "publish", NAME, "--registry", f"oci:{layouts}")
        step("singfactory pull (registry)", project, *OURS, "pull", NAME, "--registry", space)
        step("singfactory pull, again", project, *OURS, "pull", NAME, "--registry", space)
        step("singfactory path", project, *OURS, "path", NAME, "--registry", space)
        shutil.rmtree(store)
        step("oras pull", project, tool("oras"), "pull", "--plain-http", other, "-o", str(folder / "oras"))
        shutil.rmtree(folder / "oras")
        step("singfactory pull (oci:)", project, *OURS, "pull", NAME, "--registry", f"oci:{layouts}")
        shutil.rmtree(store)
        shutil.rmtree(layouts)
    return costs


if __name__ == "__main__":
    sys.exit(main())

"""Build, test, publish and pull the recipes of this repository: python -m benchmarks.shipped [RECIPE …].

Those whose base is on Docker Hub are left to benchmarks.mirrored. Bases are built first. The files of an image are
removed when its row is printed, unless another image is built from it. The largest needs 30 GB of disk in --folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.images import OURS, ROOT
from benchmarks.measure import Report, machine, markdown
from factory.recipes.load import load_recipe
from factory.recipes.model import Recipe
from tests.servers import docker_registry

_HEADS = ("recipe", "build s", "test s", "publish s", "pull s", "SIF MB", "disk GB", "declared", "tests")


def main() -> None:
    """Make the images one after the other, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: all but those of Docker Hub's images")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="write the report to this file, too")
    options = parser.parse_args()
    recipes = in_order({path.name: load_recipe(path) for path in sorted((ROOT / "recipes").iterdir())})
    wanted = [one for one in recipes if one.name in options.recipes] if options.recipes else recipes
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="singfactory-shipped-", dir=options.folder)
        folder = Path(stack.enter_context(made))
        server = stack.enter_context(docker_registry(folder / "registry"))
        place = Place(folder, f"http://{server.host}/images")
        rows = []
        for recipe in wanted:
            rows.append(place.make(recipe))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        report = Report(options.output)
        report.add(f"# The recipes of this repository: {machine()}")
        report.add(markdown(_HEADS, rows))


def in_order(recipes: Mapping[str, Recipe]) -> list[Recipe]:
    """Return the recipes after their bases. Those that begin with another registry's image are left out."""
    found: list[Recipe] = []

    def add(recipe: Recipe) -> None:
        if base := base_of(recipe):
            add(recipes[base])
        if recipe not in found:
            found.append(recipe)

    for recipe in recipes.values():
        if not recipe.build.base.startswith("docker://"):
            add(recipe)
    return found


def base_of(recipe: Recipe) -> str:
    """Return the name of the recipe that this one is based on; '' if there is none."""
    return recipe.build.base.removeprefix("recipe://") if recipe.build.base.startswith("recipe://") else ""


class Place:
    """A factory with a copy of the recipes, a registry and a store."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._project, self._registry = folder / "project", registry
        shutil.copytree(ROOT / "recipes", self._project / "recipes")
        (self._project / "factory.toml").write_text("")
        (folder / "tmp").mkdir()
        own = {name: text for name, text in os.environ.items() if name == "SINGFACTORY_ENGINE" or "SINGF" not in name}
        more = {"SINGFACTORY_TMPDIR": str(folder / "tmp"), "SINGFACTORY_STORE": str(folder / "store")}
        self._env = {**own, "PYTHONPATH": str(ROOT), **more}

    def make(self, recipe: Recipe) -> Sequence[str]:
        """Make a release and pull it. Return its row."""
        if base := base_of(recipe):
            self._run("make", base)
        made = next(one for one in self._run("make", recipe.name)["made"] if one["recipe"] == recipe.name)
        if made["error"]:
            return [recipe.name, *"-------", made["tests"] or str(made["error"])[:200]]
        record = self._project / f".singfactory/candidates/{recipe.name}-{recipe.build.arch[0]}/candidate.json"
        disk = json.loads(record.read_bytes())["disk"]
        started = time.monotonic()
        pulled = self._run("pull", recipe.name)
        seconds = time.monotonic() - started
        shutil.rmtree(Path(self._env["SINGFACTORY_STORE"]))
        times = [f"{made['seconds'][step]:.1f}" for step in ("build", "test", "publish")]
        sizes = [f"{pulled['size'] / 1e6:.0f}", f"{disk / 1e9:.1f}", f"{recipe.build.disk / 1e9:.0f}"]
        return [recipe.name, *times, f"{seconds:.1f}", *sizes, made["tests"]]

    def _run(self, *arguments: str) -> Any:  # noqa: ANN401 - any JSON value
        command = [*OURS, *arguments, "--registry", self._registry, "--json"]
        done = subprocess.run(command, cwd=self._project, env=self._env, stdout=subprocess.PIPE, check=False)
        if not done.stdout:
            sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}")
        return json.loads(done.stdout)


if __name__ == "__main__":
    main()

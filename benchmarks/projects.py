"""Projects as people have them, from `singfactory new --project` to a published, pulled and running image.

    python -m benchmarks.projects --folder FOLDER [NAME ...]

For each folder of tests/projects: seconds of `new`, `lint`, `make` (build, test, publish), `pull` and of the program in
the image, its size, and what the recipe's own test said. Nothing is edited in between. FOLDER keeps the factory, so
that a second run builds only what has changed; the base, python-3.11, is built in it first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = ROOT / "tests/projects"
# What a user would run first, with the project bound.
PROGRAMS = {
    "web-flask": "import app; print(app.app.test_client().get('/').text)",
    "web-fastapi": "import measure_api; measure_api.main()",
    "scientific": "import xarray; print(xarray.DataArray([1, 2, 3]).mean().item())",
    "jax-cpu": "import jax; print(jax.numpy.arange(4).sum())",
    "compiled": "import psycopg2, lxml.etree; print(psycopg2.__libpq_version__)",
    "workspace": "import lab_cli; print(lab_cli.lab_core.networkx.path_graph(3))",
    "torch-cpu": "import torch; print(torch.ones(2, 2).sum().item())",
    "pylock-tools": "import polars; print(polars.DataFrame({'a': [1, 2]}).sum())",
    "django-hashed": "import django; django.setup; print(django.VERSION)",
    "sklearn-hashed": "import lightgbm, sklearn; print(sklearn.__version__, lightgbm.__version__)",
    "opencv-plain": "import cv2; print(cv2.__version__)",
    "nlp-frozen": "import transformers; print(transformers.__version__)",
    "data-plain": "import loader; print(loader.duckdb.sql('select 42').fetchall())",
}
OPTIONS = {"web-fastapi": ("--include-code",), "workspace": ("--group", "docs")}


@dataclass(frozen=True)
class Row:
    """What happened to a project. seconds: by step; failed: the step that failed, and its last lines."""

    name: str
    packages: int = 0
    seconds: Mapping[str, float] | None = None
    size: int = 0
    said: str = ""
    failed: str = ""


class Factory:
    """A factory in a folder, with its own store."""

    def __init__(self, folder: Path) -> None:
        """Make it, with the recipe of the base."""
        self.folder = folder
        (folder / "recipes").mkdir(parents=True, exist_ok=True)
        (folder / "factory.toml").touch()
        shutil.copytree(ROOT / "recipes/python-3.11", folder / "recipes/python-3.11", dirs_exist_ok=True)

    def run(self, *arguments: str) -> tuple[str, float]:
        """Run singfactory; returns its output and the seconds that it took. Raises CalledProcessError."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "factory.cli", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SINGFACTORY_STORE": str(self.folder / "store")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
        return done.stdout, time.monotonic() - started


def measure(factory: Factory, name: str) -> Row:
    """Take one project all the way."""
    shutil.rmtree(factory.folder / "recipes" / name, ignore_errors=True)
    project = PROJECTS / name
    bind = ("--bind", f"{project}:/project") if "--include-code" not in OPTIONS.get(name, ()) else ()
    seconds: dict[str, float] = {}
    step = ""
    try:
        for step, arguments in (
            ("new", ("new", name, "--project", str(project), *OPTIONS.get(name, ()))),
            ("lint", ("lint", name)),
            ("make", ("make", name)),
            ("pull", ("pull", name, "--json")),
            ("exec", ("exec", *bind, name, "python", "-c", PROGRAMS[name])),
        ):
            out, seconds[step] = factory.run(*arguments)
            if step == "lint" and "warning" in out:
                return Row(name, failed=f"lint: {out.splitlines()[0]}")
            if step == "pull":
                size = int(json.loads(out)["size"])
    except subprocess.CalledProcessError as error:
        return Row(name, seconds=seconds, failed=f"{step}: {' '.join(error.stderr.split())[-600:]}")
    listed = (factory.folder / "recipes" / name / "tests/distributions.txt").read_text().splitlines()
    return Row(name, len(listed) - 1, seconds, size, out.strip().splitlines()[-1])


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    factory = Factory(options.folder.absolute())
    factory.run("make", "python-3.11")
    print(
        f"{'project':16} {'packages':>8} {'new':>5} {'lint':>5} {'make':>6} {'pull':>5} {'exec':>5} {'MB':>6}  prints"
    )
    failed = 0
    for name in options.names or sorted(PROGRAMS):
        row = measure(factory, name)
        if row.failed:
            failed += 1
            print(f"{name:16} FAILED {row.failed}", flush=True)
            continue
        took = " ".join(
            f"{(row.seconds or {})[step]:{width}.1f}"
            for step, width in (("new", 5), ("lint", 5), ("make", 6), ("pull", 5), ("exec", 5))
        )
        print(f"{name:16} {row.packages:8} {took} {row.size / 1e6:6.0f}  {row.said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

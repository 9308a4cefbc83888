"""Pairs of images: one, and its successor after a change of its recipe or base.

`singfactory build` builds them from the recipes of this repository, in projects that are git repositories. They are
kept in a folder, since building all of them takes half an hour. A *line* is a project with its own base image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import OURS, ROOT
from factory.recipes.quiet import quiet
from tests.servers import tool

BASE = "python-3.11"
_TORCH, _SCIENCE = "pytorch-cpu", "python-science"
_UPGRADE = """\
    # Simulates a rebuild some weeks later: Debian's security update of one library.
    echo 'deb {{ debian_mirror }}-security bookworm-security main' >/etc/apt/sources.list.d/security.list
    apt-get update
    apt-get install --yes --no-install-recommends --only-upgrade libssl3 openssl
    rm /etc/apt/sources.list.d/security.list
"""

Edit = tuple[str, str, str]  # a file in the recipe's folder, a text in it, its replacement


@dataclass(frozen=True)
class Line:
    """A project. edits: changes to the base's recipe. quiet: whether the rules for quiet builds are on."""

    name: str
    edits: tuple[Edit, ...] = ()
    quiet: bool = True


@dataclass(frozen=True)
class Made:
    """An image. day: commit date of its recipe in January 2026; the base's is the first."""

    name: str
    recipe: str
    line: Line
    day: int = 2
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Case:
    """An update from one image to another. letter: its name in the report."""

    letter: str
    title: str
    before: str
    after: str


_FIRST = Line("first")
_AGAIN = Line("again")
_UPGRADED = Line("upgraded", (("image.def", "\n%environment", f"{_UPGRADE}\n%environment"),))
_PLAIN = Line("plain", quiet=False)
_PIP = "    /opt/python/bin/pip install --no-cache-dir --no-deps"
_END = "\n%runscript"
_ADDED = (("image.def", _END, f"{_PIP} tqdm==4.67.1\n{_END}"),)
_OLD_NUMPY = (("image.def", _END, f"{_PIP} numpy==2.2.5\n{_END}"),)
_OLD_SCIENCE = (("image.def", "\n%environment", f"{_PIP} pandas==2.2.2 matplotlib==3.9.4\n\n%environment"),)

IMAGES = (
    Made("torch", _TORCH, _FIRST),
    Made("torch-again", _TORCH, _AGAIN),
    Made("torch-added", _TORCH, _FIRST, 3, _ADDED),
    Made("torch-old-numpy", _TORCH, _FIRST, 1, _OLD_NUMPY),
    Made("torch-upgraded", _TORCH, _UPGRADED),
    Made("science-old", _SCIENCE, _FIRST, 1, _OLD_SCIENCE),
    Made("science", _SCIENCE, _FIRST),
    Made("torch-plain", _TORCH, _PLAIN),
    Made("torch-plain-added", _TORCH, _PLAIN, 3, _ADDED),
    Made("science-plain", _SCIENCE, _PLAIN),
)
CASES = (
    Case("a", "PyTorch and its base built again, nothing changed", "torch", "torch-again"),
    Case("b", "PyTorch, and tqdm added", "torch", "torch-added"),
    Case("c", "PyTorch, NumPy 2.2.5 upgraded to 2.2.6", "torch-old-numpy", "torch"),
    Case("d", "PyTorch on a base with OpenSSL's security update", "torch", "torch-upgraded"),
    Case("e", "scientific Python, pandas and Matplotlib upgraded", "science-old", "science"),
)
WITHOUT_RULES = Case("b, no rules", "as b, built without the rules", "torch-plain", "torch-plain-added")
COMPARED = (  # with the rules, without them, the statement to run
    ("torch", "torch-plain", "import torch"),
    ("science", "science-plain", "import numpy, scipy, pandas"),
)


def path_of(folder: Path, name: str) -> Path:
    """Return the path of an image in the folder."""
    return folder / f"{name}.sif"


def make_missing(folder: Path, names: Sequence[str]) -> None:
    """Build the missing images, one after the other. Exits if a build fails; its log is kept."""
    for image in IMAGES:
        if image.name in names and not path_of(folder, image.name).exists():
            started = time.monotonic()
            print(f"building {image.name}", file=sys.stderr, flush=True)
            _make(folder, image)
            print(f"built {image.name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _make(folder: Path, image: Made) -> None:
    project = folder / "projects" / image.line.name
    _write(project, BASE, image.line, 1, image.line.edits)
    _write(project, image.recipe, image.line, image.day, image.edits)
    arguments = [*OURS, "build", BASE, image.recipe, "--registry", f"oci:{project / 'registry'}"]
    log = folder / f"{image.name}.log"
    with log.open("wb") as output:
        status = subprocess.call(arguments, cwd=project, env=_environment(project), stdout=output, stderr=output)
    if status != 0:
        sys.exit(f"{image.name} failed to build: {log}\n{log.read_text(errors='replace')[-2000:]}")
    built = project / f".singfactory/candidates/{image.recipe}-amd64/image.sif"
    target = path_of(folder, image.name)
    shutil.copyfile(built, target.with_suffix(".new"))
    target.with_suffix(".new").rename(target)


def _environment(project: Path) -> Mapping[str, str]:
    """Return the user's environment, which names package mirrors, without settings for singfactory."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("SINGFACTORY_")}
    engine = {name: text for name, text in os.environ.items() if name.startswith("SINGFACTORY_ENGINE")}
    return {**own, **engine, "PYTHONPATH": str(ROOT), "SINGFACTORY_STORE": str(project / "store")}


def _write(project: Path, recipe: str, line: Line, day: int, edits: Sequence[Edit]) -> None:
    """Write a recipe into the project, and commit it if it has changed."""
    if not project.exists():
        project.mkdir(parents=True)
        (project / "factory.toml").write_text("")
        (project / ".gitignore").write_text(".singfactory/\nregistry/\nstore/\n")
        _git(project, day, "init", "--quiet")
    target = project / "recipes" / recipe
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "recipes" / recipe, target, ignore=shutil.ignore_patterns("__pycache__"))
    if not line.quiet:
        with (target / "recipe.toml").open("a") as file:
            file.write("\n[quiet]\n" + "".join(f"{rule.name} = false\n" for rule in quiet.RULES))
    for name, old, new in edits:
        text = (target / name).read_text()
        if text.count(old) != 1:
            sys.exit(f"{recipe}/{name} contains {old!r} {text.count(old)} times: adapt benchmarks/rebuilt.py")
        (target / name).write_text(text.replace(old, new))
    _git(project, day, "add", "--all")
    if _git(project, day, "status", "--porcelain"):
        _git(project, day, "commit", "--quiet", "--message", f"{recipe}, day {day}")


def _git(project: Path, day: int, *arguments: str) -> bytes:
    date = f"2026-01-{day:02}T12:00:00+00:00"
    who = {f"GIT_{role}_{part}": "benchmark" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    env = {**os.environ, **who, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    return subprocess.check_output([tool("git"), *arguments], cwd=project, env=env)

"""Build, test, publish, pull and update the image of PyTorch with CUDA: python -m benchmarks.cuda.

The wheels come from the package index that pip uses here: some 3 GB, twice. The base is built first and not counted.
Then NumPy moves to the patch version before, all else stays, and the image is built, published and pulled again. Memory
is that of all processes of the step. Disk is the most that the folders of builds and candidates held, looked at every
few seconds. Needs about 40 GB of disk in --folder and takes some 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.images import OURS, ROOT
from benchmarks.measure import Cost, Report, machine, markdown, measured
from factory.io.trees import disk_use
from factory.recipes.load import load_recipe
from tests.servers import docker_registry, tool

BASE, RECIPE = "python-3.11", "pytorch-cuda"
_LOOK = 15.0  # seconds between two looks at the disk
_MOVED = "numpy"
_IDENTITY = {f"GIT_{role}_{part}": "benchmark" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


@dataclass
class Place:
    """A factory of the two recipes with its store. peak: the most bytes that builds took on disk in this step."""

    project: Path
    registry: str
    env: Mapping[str, str]
    rows: list[list[str]] = field(default_factory=list)

    def run(self, *arguments: str) -> tuple[Cost, float, Any]:
        """Run a command of singfactory. Return its cost, the disk it took at most in GB, and its JSON document."""
        output = self.project.parent / "output.json"
        output.unlink(missing_ok=True)
        command = [*OURS, *arguments, "--registry", self.registry, "--json"]
        with watched(self.project.parent / "tmp", self.project / ".singfactory") as peak:
            cost = measured(command, self.project, self.env, output)
        return cost, peak[0] / 1e9, json.loads(output.read_bytes())

    def step(self, name: str, *arguments: str) -> Any:  # noqa: ANN401 - any JSON value
        """Run a command as a row of the table."""
        cost, disk, answer = self.run(*arguments)
        self.rows.append([name, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.memory:.0f}", f"{disk:.1f}"])
        print(" ".join(self.rows[-1]), file=sys.stderr, flush=True)
        return answer

    def commit(self, message: str) -> None:
        """Commit the recipes: the time of the commit is that of the files in the image."""
        for arguments in (["add", "--all"], ["commit", "--quiet", "--message", message]):
            subprocess.run([tool("git"), *arguments], cwd=self.project, env=dict(self.env), check=True)


@contextlib.contextmanager
def watched(*folders: Path) -> Iterator[list[int]]:
    """Look at the disk use of folders until the block ends. Yields a list with the largest sum, in bytes."""
    peak, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            with contextlib.suppress(OSError):  # a folder that is being removed
                peak[0] = max(peak[0], sum(disk_use(folder) for folder in folders if folder.exists()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="write the report to this file, too")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="singfactory-cuda-", dir=options.folder)
        folder = Path(stack.enter_context(made))
        server = stack.enter_context(docker_registry(folder / "registry"))
        measure(prepared(folder, f"http://{server.host}/images"), Report(options.output))


def prepared(folder: Path, registry: str) -> Place:
    """Create a project with the two recipes, and build the base."""
    project = folder / "project"
    for name in (BASE, RECIPE):
        shutil.copytree(ROOT / "recipes" / name, project / "recipes" / name)
    (project / "factory.toml").write_text("")
    (project / ".gitignore").write_text(".singfactory/\n*.log\n")
    (folder / "tmp").mkdir()
    own = {name: text for name, text in os.environ.items() if name == "SINGFACTORY_ENGINE" or "SINGF" not in name}
    env = {**own, **_IDENTITY, "PYTHONPATH": str(ROOT), "SINGFACTORY_TMPDIR": str(folder / "tmp")}
    place = Place(project, registry, {**env, "SINGFACTORY_STORE": str(folder / "store")})
    subprocess.run([tool("git"), "init", "--quiet"], cwd=project, check=True)
    place.commit("the recipes")
    place.run("make", BASE)
    return place


def measure(place: Place, report: Report) -> None:
    """Measure the first release and its update."""
    first = life(place, "")
    old, new = move(place)
    second = life(place, f", {_MOVED} {old} to {new}")
    report.add(f"# {RECIPE}: {machine()}")
    report.add(markdown(["step", "wall s", "CPU s", "peak MB", "disk GB"], place.rows))
    declared = load_recipe(place.project / "recipes" / RECIPE).build.disk
    heads = ["image", "SIF MB", "pull: fetched MB", "reused MB", "disk of the build GB", "declared GB", "tests"]
    rows = [
        [
            name,
            *(f"{one[key] / 1e6:.1f}" for key in ("size", "transferred", "reused")),
            f"{one['disk'] / 1e9:.1f}",
            f"{declared / 1e9:.0f}",
            one["tests"],
        ]
        for name, one in (("first", first), ("update", second))
    ]
    report.add(markdown(heads, rows))


def life(place: Place, what: str) -> dict[str, Any]:
    """Build, test, publish, pull and run. Return what the tables say of the image."""
    place.step(f"build{what}", "build", RECIPE)
    tests = place.step(f"test{what}", "test", RECIPE)[0]["summary"]
    place.step(f"publish{what}", "publish", RECIPE)
    pulled = place.step(f"pull{what}", "pull", RECIPE)
    command = [*OURS, "exec", RECIPE, "--registry", place.registry, "--", "python", "-c", "import torch"]
    cost = measured(command, place.project, place.env)
    place.rows.append([f"exec, import torch{what}", f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.memory:.0f}", "0.0"])
    record = json.loads((place.project / f".singfactory/candidates/{RECIPE}-amd64/candidate.json").read_bytes())
    return {**pulled, "disk": record["disk"], "tests": tests}


def move(place: Place) -> tuple[str, str]:
    """Move one package to the patch version before it; all others stay as they are locked. Return both versions."""
    folder = place.project / "recipes" / RECIPE / "files"
    wanted, locked = folder / "requirements.in", folder / "requirements.txt"
    old = version_in(locked)
    series, _, patch = old.rpartition(".")
    wanted.write_text(
        re.sub(rf"^{_MOVED}\b.*$", f"{_MOVED}=={series}.{int(patch) - 1}", wanted.read_text(), flags=re.MULTILINE)
    )
    before = set(re.findall(r"^\S+==\S+", locked.read_text(), re.MULTILINE))
    compile_again(locked)
    moved = before ^ set(re.findall(r"^\S+==\S+", locked.read_text(), re.MULTILINE))
    if {name.partition("==")[0] for name in moved} != {_MOVED}:
        sys.exit(f"more than {_MOVED} moved: {sorted(moved)}")
    place.commit(f"{_MOVED} moves")
    return old, version_in(locked)


def compile_again(locked: Path) -> None:
    """Run the command that the head of the file says it was made with. Pins that still fit stay."""
    command = next(line for line in locked.read_text().splitlines() if line.startswith("#    uv "))
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, *command.split()[2:], "--quiet"], cwd=locked.parent, check=True, stdout=subprocess.DEVNULL)


def version_in(locked: Path) -> str:
    """Return the version of the package in a file of locked requirements."""
    match = re.search(rf"^{_MOVED}==(\S+)", locked.read_text(), re.MULTILINE)
    return match[1] if match else sys.exit(f"{locked} does not name {_MOVED}")


if __name__ == "__main__":
    main()

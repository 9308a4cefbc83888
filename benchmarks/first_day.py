"""A first day on a cluster, by hand and with singfactory, on a real SLURM of one node (as root).

    python -m benchmarks.first_day [--megabytes 50] [--rounds 5]

An image is fetched from a registry onto a shared file system. Then an array of two tasks, which start at the same
time, runs a program in it. The shared file system is a FUSE mount that counts what is read; nothing of it is in the
page cache. By hand, the tasks copy the image to the node's disk as people do: each into a folder of its own, or both
into one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.engine import host
from factory.io import process
from tests import odd_file_system
from tests.factory_project import DEFINITION, Project, make_project, push_base
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster
from tests.servers import docker_registry

OWN = "${SLURM_TMPDIR:?}"
SHARED = "NODE/$USER"
BY_HAND = """\
#!/bin/bash
#SBATCH --job-name=hand
#SBATCH --array=1-2
#SBATCH --output=%x-%A_%a.out
set -e
module() {{ :; }}
module load apptainer
image={folder}/tool.sif
mkdir -p {folder}
[ -e $image ] || cp {shared}/tool.sif $image
apptainer exec $image cat /made
"""
FETCH = "apptainer pull --no-https {shared}/tool.sif oras://{registry}/tool:latest"
OURS = ("singfactory pull tool", "singfactory job --submit --array 1-2 tool -- cat /made")


class Counting(odd_file_system.OddFileSystem):
    """The file system of the tests; the number of bytes read is in a file."""

    def __init__(self, folder: str, counter: str) -> None:
        super().__init__(folder, -1, ())
        self.counter, self.total = os.open(counter, os.O_RDWR | os.O_CREAT, 0o644), 0

    def read(self, node: int, data: bytes) -> bytes:
        """Count, then read."""
        found = super().read(node, data)
        self.total += len(found)
        os.pwrite(self.counter, struct.pack("<Q", self.total), 0)
        return found


@dataclass(frozen=True)
class Way:
    """How one way went. lines: that a person types. read: bytes from the shared file system by the two tasks."""

    name: str
    lines: int
    read: int
    logs: Collection[str]

    @property
    def succeeded(self) -> int:
        """How many of the tasks printed what the program prints."""
        return sum(log.rstrip().endswith("made") for log in self.logs)


@contextlib.contextmanager
def shared_file_system(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount the counting file system; yield the mount and the counter's file."""
    below, mount, counter = folder / "below", folder / "shared", folder / "read"
    below.mkdir()
    mount.mkdir()
    command = [sys.executable, "-m", "benchmarks.first_day", "--serve", str(below), str(mount), str(counter)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "mounted\n"
            yield mount, counter
        finally:
            subprocess.run(["umount", "--lazy", mount], check=False)  # noqa: S607
            server.terminate()


def usual_engine(folder: Path, engine: str, env: Mapping[str, str]) -> Path:
    """Return a folder with an `apptainer` that works when it is called plainly, as on a cluster.

    This machine may be a virtual one whose root lacks a capability: then the engine is started in a user namespace, as
    singfactory does (factory.engine.host).
    """
    program = folder / "bin/apptainer"
    program.parent.mkdir()
    command = process.command([engine], host.probe(env).mapping, bound=False)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    return program.parent


def read_of(counter: Path) -> int:
    """Return how many bytes have been read from the shared file system."""
    content = counter.read_bytes() if counter.exists() else b""
    return int(struct.unpack("<Q", content)[0]) if content else 0


def by_hand(user: Project, cluster: Cluster, counter: Path, place: str) -> Way:
    """Write the script, submit it, wait, and read the logs."""
    cluster.clean()
    folder = place.replace("NODE", str(cluster.node_only))
    text = BY_HAND.format(folder=folder, shared=user.env["SHARED"])
    script = user.folder / "hand.sh"
    script.write_text(text)
    before = read_of(counter)
    submit = ["sbatch", str(script)]
    subprocess.run(submit, cwd=user.folder, env=user.env, check=True, stdout=subprocess.DEVNULL)
    cluster.wait_until_empty(120)
    kind = "a folder of each task" if place == OWN else "one folder on the node"
    lines = len([line for line in text.splitlines() if not line.startswith("module()")]) + 2  # the pull, sbatch
    return Way(f"by hand, {kind}", lines, read_of(counter) - before, taken(user, "hand"))


def with_singfactory(user: Project, cluster: Cluster, counter: Path) -> Way:
    """The job; the image was pulled before."""
    cluster.clean()
    before = read_of(counter)
    user.ok(*OURS[1].split()[1:])
    cluster.wait_until_empty(120)
    return Way("singfactory", len(OURS), read_of(counter) - before, taken(user, "tool"))


def together(rounds: Sequence[Way]) -> Way:
    """One row for all rounds: the mean of what was read, and every log."""
    first = rounds[0]
    logs = [log for way in rounds for log in way.logs]
    return Way(first.name, first.lines, sum(way.read for way in rounds) // len(rounds), logs)


def taken(user: Project, name: str) -> list[str]:
    """The logs of the tasks, which are removed."""
    found = []
    for path in sorted(user.folder.glob(f"{name}-*_*.out")):
        found.append(path.read_text(errors="replace"))
        path.unlink()
    return found


def table(ways: Collection[Way], size: int) -> None:
    """Print one line for each way."""
    print(f"image: {size / 1e6:.1f} MB; load {os.getloadavg()[0]:.1f}")
    print(f"{'':36}{'lines typed':>12}{'read from shared':>18}{'x image':>9}{'tasks that succeed':>20}")
    for way in ways:
        print(
            f"{way.name:36}{way.lines:12}{way.read / 1e6:15.1f} MB{way.read / size:9.2f}"
            f"{way.succeeded:15} of {len(way.logs)}"
        )
        for log in way.logs:
            if not log.rstrip().endswith("made"):
                lines = [re.sub(r"\x1b\[[0-9]*m", "", line).strip() for line in log.splitlines()]
                errors = [line for line in lines if re.search("FATAL|rror|cannot", line)]
                print(f"    failed: {(errors or lines or ['no output'])[0][:150]}")


def main() -> None:
    """Run all ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=50, help="size of the image")
    parser.add_argument("--rounds", type=int, default=5, help="arrays for each way")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        folder, mount, counter = options.serve
        device = odd_file_system._mount(folder, mount)  # noqa: SLF001 - the same file system, with a counter
        print("mounted", flush=True)
        Counting(folder, counter).serve(device)
        return
    if why := missing() or odd_file_system.reason_against():
        sys.exit(why)
    engine = os.environ.get("SINGFACTORY_ENGINE") or shutil.which("apptainer") or sys.exit("set SINGFACTORY_ENGINE")
    with tempfile.TemporaryDirectory(prefix="day-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "registry").mkdir()
        registry = stack.enter_context(docker_registry(folder / "registry"))
        factory = make_project(folder / "factory", engine, registry.host)
        text = hashlib.shake_256(b"image").hexdigest(options.megabytes * 1_000_000)
        base = push_base(registry.host, tag="large", text=text)
        factory.recipe("tool", definition=DEFINITION, base=base, disk="1GB")
        namespace = f"{registry.host}/day"
        factory.ok("make", "tool", SINGFACTORY_REGISTRY=f"http://{namespace}")
        shared, counter = stack.enter_context(shared_file_system(folder))
        cluster = stack.enter_context(slurm_cluster())
        env = {
            **factory.env,
            **cluster.env,
            "PATH": f"{usual_engine(folder, engine, factory.env)}:{Path(sys.executable).parent}:{factory.env['PATH']}",
            "SINGFACTORY_REGISTRY": f"http://{namespace}",
            "SINGFACTORY_STORE": str(shared / "store"),
            "SHARED": str(shared),
            "USER": "root",
        }
        del env["SINGFACTORY_TMPDIR"], env["TMPDIR"]
        (folder / "home").mkdir()
        user = Project(folder / "home", env, base)
        pull = FETCH.format(shared=shared, registry=namespace)
        subprocess.run(pull.split(), env=env, check=True, capture_output=True)
        user.ok(*OURS[0].split()[1:])
        size = (shared / "tool.sif").stat().st_size
        ways: tuple[Callable[[], Way], ...] = (
            lambda: by_hand(user, cluster, counter, OWN),
            lambda: by_hand(user, cluster, counter, SHARED),
            lambda: with_singfactory(user, cluster, counter),
        )
        table([together([way() for _ in range(options.rounds)]) for way in ways], size)


if __name__ == "__main__":
    main()

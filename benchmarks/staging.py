"""Staging on a SLURM cluster of this machine: copies on one node, and one image on many nodes.

    python -m benchmarks.staging [--tasks 50] [--nodes 8] [--size 400] [--rate 160mbit] [--only one|many] [--ways WAY,…]

Needs root, SLURM and iproute2 like the tests, and for many nodes sshfs and openssh-sftp-server. Each node has a network
interface with this bandwidth in each direction. One more node is the file server: it serves the store to all nodes with
SFTP, so its interface counts the bytes that are read from the store, whoever reads them. Times are those of `srun`, and
ratios are to one plain copy on one node in the same run.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.registry.protocol import SIF_LAYER
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.refs import StoredImage
from factory.store.store import Store
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

ROOT = Path(__file__).resolve().parents[1]
SFTP = Path("/usr/lib/openssh/sftp-server")
PORT = 2049
DIES = "dies"  # by pieces, and a node dies in the middle
STAGE = f"{sys.executable} -m factory.cli stage tool --json"
_BLOCK = 1 << 20
_KILLER = """\
while ! file=$(find {disk} -path '*/partial/*' -size +50M 2>/dev/null | grep -m1 .); do sleep 0.02; done
kill -9 "$(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' "${{file%/partial/*}}"/locks/*.lock)"
"""
_SERVER = """\
import socket, subprocess, sys
with socket.create_server(("", {port})) as server:
    while True:
        taken, _ = server.accept()
        with taken:
            subprocess.Popen(["{sftp}"], stdin=taken, stdout=taken)
"""


@dataclass(frozen=True)
class Options:
    """Sizes of the run: MB, tasks, nodes; tc(8)'s name of the bandwidth; settings of broadcast, or DIES."""

    size: int
    tasks: int
    nodes: int
    rate: str
    ways: tuple[str, ...]


def store_with_image(folder: Path, size: int) -> tuple[Store, Descriptor]:
    """Make a store with one image of random bytes."""
    content = os.urandom(size * _BLOCK)
    store, sif = Store(folder / "store"), Descriptor.of(SIF_LAYER, content)
    fetch_whole(store, sif, Source(lambda offset, _: [content[offset:]]), Silent())
    image = StoredImage("tool", "1.0-1", "oci:/x", Digest.of(b"m"), sif.digest, sif.size, "2024-05-01T12:00:00Z")
    store.record(image, ["latest"])
    return store, sif


def tell(cluster: Cluster, store: Path, **env: str) -> None:
    """Configure singfactory on the nodes."""
    known = {"SINGFACTORY_STORE": str(store), "SINGFACTORY_REGISTRY": "oci:/x", "PYTHONPATH": str(ROOT)}
    cluster.set_on_node(**known, **env)


def rows_in(folder: Path) -> list[dict[str, int]]:
    """What the tasks that succeeded have said."""
    return [json.loads(text) for path in sorted(folder.iterdir()) if (text := path.read_text())]


def one_node(options: Options, folder: Path) -> None:
    """An array of tasks on one node, each with a SLURM_TMPDIR of its own; then the same with a task that is killed."""
    store, sif = store_with_image(folder, options.size)
    print(f"array of {options.tasks} tasks on one node, an image of {options.size} MB, SLURM_TMPDIR of each job")
    with slurm_cluster(1, cpus=options.tasks + 1) as cluster:
        for killed in (False, True):
            tell(cluster, store.root)
            out = folder / f"array-{killed}"
            out.mkdir()
            script = f"srun --overlap {STAGE} > {out}/$SLURM_ARRAY_TASK_ID"
            kills = killer(cluster) if killed else None
            began = time.monotonic()
            cluster.ask("sbatch", "--output=/dev/null", f"--array=1-{options.tasks}", f"--wrap={script}")
            cluster.wait_until_empty(600)
            assert kills is None or kills.wait(10) == 0, "nobody was killed"
            rows = rows_in(out)
            files = cluster.on_node(f"find {cluster.node_only} -name '*.sif' -printf '%i\\n'").split()
            print(
                f"  {'a task killed in the middle: ' if killed else ''}"
                f"{len(rows)} of {options.tasks} succeed, {len(set(files))} copy in {len(files)} folders, "
                f"{sum(row['from_store'] for row in rows) / sif.size:.2f} x the image read from the store, "
                f"{time.monotonic() - began:.1f} s",
                flush=True,
            )
            cluster.clean()


def killer(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Start a job that kills the process that copies, in the middle."""
    script = _KILLER.format(disk=cluster.node_only)
    return subprocess.Popen(
        [shutil.which("srun") or "srun", "/bin/sh", "-c", script], env={**os.environ, **cluster.env}
    )


def many_nodes(options: Options, folder: Path) -> None:
    """The same image on many nodes, each way; then by pieces with a node that dies."""
    _, sif = store_with_image(folder, options.size)
    print(f"{options.nodes} nodes, {options.rate} each, an image of {options.size} MB in a store behind {options.rate}")
    with (
        slurm_cluster(options.nodes + 1, cpus=2, rate=options.rate) as cluster,
        served(cluster, folder) as shared,
    ):
        alone, _ = timed(cluster, options, folder, shared, "off", nodes=1)
        for way in (way for way in options.ways if way != DIES):
            seconds, read = timed(cluster, options, folder, shared, way, nodes=options.nodes)
            print_row(way, options.nodes, seconds, alone, read / sif.size)
        if DIES in options.ways:
            seconds, read = timed(cluster, options, folder, shared, "pieces", nodes=options.nodes, dies="node3")
            print_row("pieces, and a node dies", options.nodes - 1, seconds, alone, read / sif.size)


def print_row(name: str, nodes: int, seconds: float, alone: float, read: float) -> None:
    """Print one line of results."""
    print(f"  {name:24} {nodes} nodes: {seconds:6.1f} s, {seconds / alone:5.2f} x one copy ({alone:.1f} s), "
          f"{read:5.2f} x the image read from the store", flush=True)  # fmt: skip


def timed(
    cluster: Cluster, options: Options, folder: Path, shared: Path, way: str, *, nodes: int, dies: str = ""
) -> tuple[float, int]:
    """Stage the image on some nodes; return the seconds until the last one has it, and the bytes read."""
    tell(cluster, shared, SINGFACTORY_BROADCAST=way)
    for node in cluster.nodes[:-1]:
        inside(cluster, node, f"rm -rf {cluster.node_only}/*; echo 3 > /proc/sys/vm/drop_caches")
        remount(cluster, node, shared)
    out = Path(tempfile.mkdtemp(dir=folder))
    listed = ",".join(cluster.nodes[:nodes])
    script = f"{STAGE} > {out}/$SLURMD_NODENAME"
    before, began = sent(cluster), time.monotonic()
    step = f"srun --kill-on-bad-exit=0 --no-kill sh -c '{script}'"
    job = ["sbatch", "--parsable", "--no-kill", f"--output={out}.log", f"--nodelist={listed}", f"--nodes={nodes}"]
    number = cluster.ask(*job, f"--wrap={step}").strip()
    expected = nodes
    if dies:
        expected -= 1
        find = f"find {cluster.node_only} -path '*/partial/*' -size +{options.size // 3}M"
        wait_for(lambda: bool(inside(cluster, dies, find).strip()), 300, lambda: "nothing arrives")
        cluster.crash(dies)

    def complete() -> list[Path]:
        return [path for path in out.iterdir() if path.read_text().endswith("}\n")]  # the node has the image

    wait_for(lambda: len(complete()) == expected, 600, lambda: f"only {complete()}")
    result = time.monotonic() - began, sent(cluster) - before
    if "-v" in sys.argv:
        print(Path(f"{out}.log").read_text(), [json.loads(path.read_text())["seconds"] for path in complete()])
    with contextlib.suppress(subprocess.CalledProcessError):
        cluster.ask("scancel", number)
    if not dies:
        cluster.wait_until_empty(60)
    return result


def inside(cluster: Cluster, node: str, script: str) -> str:
    """Run a script in a node's namespaces, without SLURM."""
    process = (cluster.folder / f"{node}.pid").read_text().strip()
    command = ["nsenter", f"--target={process}", "--mount", "--net", "--uts", "sh", "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout


def sent(cluster: Cluster) -> int:
    """The bytes that the file server has sent."""
    return int(inside(cluster, cluster.nodes[-1], "cat /proc/net/dev | sed -n 's/.*eth0: *//p' | awk '{print $9}'"))


@contextlib.contextmanager
def served(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serve the store from the last node, and mount it on all others."""
    process = (cluster.folder / f"{cluster.nodes[-1]}.pid").read_text().strip()
    script = _SERVER.format(port=PORT, sftp=SFTP)
    command = [shutil.which("nsenter") or "nsenter", f"--target={process}", "--net", sys.executable, "-c", script]
    server = subprocess.Popen(command, start_new_session=True)
    shared = folder / "shared"
    shared.mkdir()
    try:
        for node in cluster.nodes[:-1]:
            remount(cluster, node, shared)
        yield shared
    finally:
        for node in cluster.nodes[:-1]:
            inside(cluster, node, f"umount -l {shared}")
        server.terminate()
        server.wait()


def remount(cluster: Cluster, node: str, shared: Path) -> None:
    """Mount the store on a node again: nothing of it is cached."""
    address = cluster.network.address(len(cluster.nodes))
    options = f"directport={PORT},max_conns=1,cache=yes,attr_timeout=1,entry_timeout=1,negative_timeout=0"
    source = f"{address}:{shared.parent}/store"
    inside(cluster, node, f"umount -l {shared}")

    def is_there() -> bool:
        inside(cluster, node, f"mountpoint -q {shared} || sshfs -o {options} {source} {shared}")
        return bool(inside(cluster, node, f"ls {shared}").split())

    wait_for(is_there, 10, lambda: f"{node} does not see the store")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--size", type=int, default=400, help="MB")
    parser.add_argument("--rate", default="160mbit", help="of each node, for tc(8)")
    parser.add_argument("--only", choices=("one", "many"))
    parser.add_argument("--ways", default=f"pieces,sbcast,off,{DIES}")
    parser.add_argument("-v", action="store_true", help="show what the tasks say")
    given = parser.parse_args()
    options = Options(given.size, given.tasks, given.nodes, given.rate, tuple(given.ways.split(",")))
    why = missing(options.nodes)
    if why or not (SFTP.exists() and shutil.which("sshfs")):
        sys.exit(why or "apt-get install --no-install-recommends sshfs openssh-sftp-server")
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, run in (("one", one_node), ("many", many_nodes)):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="staging-") as folder:
                run(options, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())

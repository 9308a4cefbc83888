"""Images on the nodes of a real SLURM: one copy for all jobs on a node, and one read of the store for all nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.registry.protocol import SIF_LAYER
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.refs import StoredImage
from factory.store.store import Store
from tests.factory_project import DEFINITION, ROOT, Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

NODES = 4
RATE = "160mbit"
CONTENT = os.urandom(20 << 20)
SIF = Descriptor.of(SIF_LAYER, CONTENT)
KEEP = "mv $SLURMD_NODENAME.new $SLURMD_NODENAME"  # a file that is there is complete
STAGE = f"{sys.executable} -m factory.cli stage"


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    why = missing(NODES)
    if why and os.geteuid() != 0:
        pytest.skip(why)
    if why:
        pytest.fail(why, pytrace=False)
    with slurm_cluster(NODES, cpus=8, rate=RATE) as found:
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that all nodes see, with an image of random bytes."""
    store = Store(tmp_path_factory.mktemp("shared") / "store")
    fetch_whole(store, SIF, Source(lambda offset, _: [CONTENT[offset:]]), Silent())
    image = StoredImage("tool", "1.0-1", "oci:/x", Digest.of(b"m"), SIF.digest, SIF.size, "2024-05-01T12:00:00Z")
    store.record(image, ["latest"])
    return store


@pytest.fixture
def cluster(running_cluster: Cluster, store: Store) -> Iterator[Cluster]:
    tell(running_cluster, store)
    yield running_cluster
    running_cluster.wait_until_empty()
    running_cluster.clean()


def tell(cluster: Cluster, store: Store, **env: str) -> None:
    """Configure singfactory on the nodes."""
    settings = {"store": str(store.root), "registry": "oci:/x", "broadcast": "pieces"}
    known = {f"SINGFACTORY_{name.upper()}": value for name, value in settings.items()}
    cluster.set_on_node(**{"PYTHONPATH": str(ROOT), "HOME": str(store.root.parent), **known, **env})


def ran(cluster: Cluster, script: str, out: Path, *options: str) -> dict[str, Any]:
    """Run a script on all nodes, whose stdout is a JSON document; return them by node."""
    out.mkdir(exist_ok=True)
    full = f"{script} > {out}/$SLURMD_NODENAME.new 2> {out}/$SLURMD_NODENAME.err && cd {out} && {KEEP}"
    done = subprocess.run(
        ["srun", f"--nodes={NODES}", "--kill-on-bad-exit=0", *options, "/bin/sh", "-c", full],
        env={**os.environ, **cluster.env},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = results(cluster, out)
    assert found, done.stderr
    return found


def results(cluster: Cluster, out: Path) -> dict[str, Any]:
    return {node: json.loads((out / node).read_text()) for node in cluster.nodes if (out / node).exists()}


def from_store(found: dict[str, Any]) -> int:
    return sum(row["from_store"] for row in found.values())


def copies(cluster: Cluster, node: str) -> list[str]:
    """The digests of the copies on a node, one for each file, however many names it has."""
    found = f"find {cluster.node_only} -name '*.sif' -printf '%i %p\\n'"
    where = f"{found} | sort -u -k1,1 | cut -d' ' -f2- | xargs -r sha256sum"
    return [line.split()[0] for line in cluster.on_node(where, node).splitlines()]


def test_the_store_is_read_once_for_all_nodes_and_every_node_has_the_image(
    cluster: Cluster, store: Store, tmp_path: Path
) -> None:
    found = ran(cluster, f"{STAGE} tool --json", tmp_path / "out")
    assert len(found) == NODES
    assert from_store(found) == SIF.size
    assert [row["from_nodes"] for row in found.values()] == [0, *[SIF.size] * (NODES - 1)]
    assert list((store.root / "broadcast").iterdir()) == []


def test_all_tasks_of_a_node_share_its_copy(cluster: Cluster, tmp_path: Path) -> None:
    each = f"{STAGE} tool --json > {tmp_path}/$SLURM_PROCID"
    cluster.ask("srun", f"--nodes={NODES}", f"--ntasks={3 * NODES}", "/bin/sh", "-c", each, seconds=120)
    rows = [json.loads((tmp_path / str(number)).read_text()) for number in range(3 * NODES)]
    assert sum(row["from_store"] for row in rows) <= 2 * SIF.size  # a node that starts late may read it, too
    assert sum(row["copied"] for row in rows) == NODES * SIF.size


def test_exec_passes_the_image_on_after_it_has_become_the_program(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    more = "    dd if=/dev/urandom of=/large bs=1M count=12\n"
    project.recipe("tool", definition=DEFINITION + more, disk="100MB")
    project.ok("make", "tool")
    project.ok("pull", "tool")
    env = {name: value for name, value in project.env.items() if name not in ("TMPDIR", "SINGFACTORY_TMPDIR")}
    own = {name: env[name] for name in env if name.startswith("SINGFACTORY_") or name in ("HOME", "PATH")}
    cluster.set_on_node(**{**own, "PYTHONPATH": str(ROOT), "SINGFACTORY_BROADCAST": "pieces"})
    command = f"{sys.executable} -m factory.cli exec tool sh -c 'wc -c < /large'"
    script = f"cd {project.folder} && {command} 2> {tmp_path}/$SLURMD_NODENAME"
    out = cluster.ask("srun", f"--nodes={NODES}", "/bin/sh", "-c", script, seconds=120)
    notes = [(tmp_path / node).read_text() for node in cluster.nodes]
    assert out.split() == [str(12 << 20)] * NODES, notes
    assert sum("of them from other nodes" in text for text in notes) >= NODES - 2, notes


VICTIM = """\
if [ $SLURMD_NODENAME = {victim} ]; then
    (while ! find $SLURM_TMPDIR -path '*/partial/*' -size +3M | grep -q .; do sleep 0.05; done; kill -9 $$) &
fi
exec {stage} tool --json
"""


@pytest.mark.parametrize("victim", ["node1", "node3"])
def test_a_process_that_is_killed_in_the_middle_harms_no_other_node(
    cluster: Cluster, tmp_path: Path, victim: str
) -> None:
    script = tmp_path / "script"
    script.write_text(VICTIM.format(victim=victim, stage=STAGE))
    found = ran(cluster, f"sh {script}", tmp_path / "out")
    assert set(found) == set(cluster.nodes) - {victim}
    assert from_store(found) <= SIF.size * 1.5
    for node in found:
        assert copies(cluster, node) == [SIF.digest.hex]


def test_a_node_that_dies_in_the_middle_harms_no_other_node(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    script = f"{STAGE} tool --json > {out}/$SLURMD_NODENAME.new; cd {out}; {KEEP}; sleep 300"
    step = subprocess.Popen(
        ["srun", f"--nodes={NODES}", "--no-kill", "--kill-on-bad-exit=0", "/bin/sh", "-c", script],
        env={**os.environ, **cluster.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        begun = lambda: bool(read_by(cluster, "node2"))  # noqa: E731
        wait_for(begun, 60, lambda: f"node2 stages nothing: {cluster.jobs()}")
        cluster.crash("node2")
        left = {"node1", "node3", "node4"}
        wait_for(lambda: set(results(cluster, out)) == left, 60, lambda: f"only {list(out.iterdir())}")
        assert from_store(results(cluster, out)) <= SIF.size * 1.5
    finally:
        cluster.ask("scancel", "--full", "--user=root")
        step.wait(60)
        if "node2" not in cluster.running:
            cluster.boot("node2")
        cluster.resume()


def read_by(cluster: Cluster, node: str) -> list[Path]:
    """The unfinished copies of a node, as its processes see them."""
    for number in cluster.processes(node):
        root = Path(f"/proc/{number}/root{cluster.node_only}")
        found = [path for path in root.glob("*/*/partial/*") if path.stat().st_size > 1 << 20]
        if found:
            return found
    return []


def test_a_full_disk_stops_only_its_own_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.on_node(f"mount -o remount,size=30m {cluster.node_only}", "node2")
    try:
        found = ran(cluster, f"{STAGE} tool --json", tmp_path / "out")
    finally:
        cluster.on_node(f"mount -o remount,size=8g {cluster.node_only}", "node2")
    assert set(found) == {"node1", "node3", "node4"}
    assert from_store(found) == SIF.size
    error = (tmp_path / "out/node2.err").read_text()
    assert "not enough space" in error
    assert "needed" in error


def submit(cluster: Cluster, script: str, *options: str) -> str:
    """Submit a batch script; returns the job's number."""
    return cluster.ask("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()


KILLER = """\
while ! file=$(find {disk} -path '*/partial/*' -size +1M 2>/dev/null | grep -m1 .); do sleep 0.01; done
lock=$(ls "${{file%/partial/*}}"/locks/*.lock)
kill -9 "$(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' "$lock")"
"""


def array(cluster: Cluster, out: Path, count: int, script: str) -> None:
    """Run an array of jobs on one node, each of which has a SLURM_TMPDIR of its own."""
    out.mkdir(exist_ok=True)
    submit(cluster, script, "--nodelist=node1", f"--array=1-{count}")
    cluster.wait_until_empty(90)


@pytest.mark.parametrize("place", ["SLURM_TMPDIR", "stage"])
def test_an_array_makes_one_copy_on_a_node(cluster: Cluster, store: Store, tmp_path: Path, place: str) -> None:
    if place == "stage":
        cluster.on_node(f"install -d -m 1777 {cluster.node_only}/stage")
        tell(cluster, store, SINGFACTORY_STAGE=f"{cluster.node_only}/stage")
    out = tmp_path / "out"
    array(cluster, out, 8, f"srun {STAGE} tool --json > {out}/$SLURM_ARRAY_TASK_ID")
    rows = [json.loads((out / str(number)).read_text()) for number in range(1, 9)]
    assert sum(row["copied"] for row in rows) == SIF.size
    assert copies(cluster, "node1") == [SIF.digest.hex]


def test_an_array_survives_the_death_of_the_task_that_copies(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    killer = tmp_path / "killer"
    killer.write_text(KILLER.format(disk=cluster.node_only))
    task = f"srun {STAGE} tool --json > {out}/$SLURM_ARRAY_TASK_ID"
    array(cluster, out, 7, f"if mkdir {out}/killer; then sh {killer}; else {task}; fi")
    rows = [json.loads(text) for path in out.glob("[0-9]") if (text := path.read_text())]
    assert len(rows) == 5  # one task was the killer, and one was killed
    assert len(copies(cluster, "node1")) == 1


FIRST = """\
cd {folder}; srun {stage} tool --json > 1; touch made
until [ -e linked ]; do sleep 0.1; done
"""
SECOND = """\
cd {folder}; srun {stage} tool --json > 2; touch linked; sleep 3
sha256sum "$(sed -n 's/.*"path": "\\(.*\\)".*/\\1/p' 2)" > sum
"""


def test_the_copy_of_a_job_outlives_the_folder_of_the_job_that_made_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.set_epilog(f"rm -rf {cluster.node_only}/$SLURM_JOB_ID\n")
    (tmp_path / "first").write_text(FIRST.format(stage=STAGE, folder=tmp_path))
    (tmp_path / "second").write_text(SECOND.format(stage=STAGE, folder=tmp_path))
    first, second = (f"sh {tmp_path}/{name}" for name in ("first", "second"))
    submit(cluster, first, "--nodelist=node1")
    wait_for((tmp_path / "made").exists, 60, lambda: str(cluster.jobs()))
    submit(cluster, second, "--nodelist=node1")
    cluster.wait_until_empty(60)
    assert json.loads((tmp_path / "2").read_text())["linked"] is True
    assert (tmp_path / "sum").read_text().startswith(SIF.digest.hex)
    assert copies(cluster, "node1") == []


@pytest.mark.parametrize("nodes", [NODES, NODES - 1])
def test_sbcast_brings_the_image_to_all_nodes_of_a_job_where_the_site_prefers_it(
    cluster: Cluster, store: Store, tmp_path: Path, nodes: int
) -> None:
    tell(cluster, store, SINGFACTORY_BROADCAST="sbcast")
    (tmp_path / "out").mkdir()
    script = f"srun --nodes={nodes} {STAGE} tool --json > {tmp_path}/out/all 2> {tmp_path}/out/err"
    submit(cluster, script, f"--nodes={NODES}")
    cluster.wait_until_empty(90)
    error = (tmp_path / "out/err").read_text()
    assert (tmp_path / "out/all").read_text().count('"copied": 0') == (nodes if nodes == NODES else 0), error
    for node in cluster.nodes[:nodes]:
        assert copies(cluster, node) == [SIF.digest.hex]
    assert ("this step is on some of them" in error) == (nodes < NODES)

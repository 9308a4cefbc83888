"""`singfactory store usage`: leases of running and ended processes, and what the catalog says of the images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from factory.publish.announce import finish
from tests.unit.cli.cluster import FIRST, SIF, Cluster
from tests.unit.parts import QUIET, write_recipe


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.release(SIF)
    made.release(FIRST, name="other")
    for name in ("tool", "other"):
        made.ok("pull", name)
    return made


def test_a_running_program_and_its_job_are_listed(cluster: Cluster) -> None:
    running = cluster.start("exec", "tool", "true", WAIT="yes", SLURM_JOB_ID="17", SLURM_CLUSTER_NAME="big")
    assert running.stdout is not None
    assert running.stdin is not None
    running.stdout.readline()
    rows = {row["names"][0]: row for row in cluster.ok("store", "usage", "--json").json()}
    (use,) = [use for use in rows["tool:1.0-1"]["uses"] if use["in_use"]]
    assert (use["process"], use["slurm_job"], use["cluster"]) == (running.pid, "17", "big")
    assert (use["user"], use["host"]) == (os.getuid(), os.uname().nodename)
    out = cluster.ok("store", "usage").out
    assert f"SLURM job 17, process {running.pid} on " in out
    running.communicate("\n")
    ended = {row["names"][0]: row for row in cluster.ok("store", "usage", "--json").json()}
    assert not any(use["in_use"] for use in ended["tool:1.0-1"]["uses"])
    assert ended["tool:1.0-1"]["last_used"] > 0
    assert "last used 20" in cluster.ok("store", "usage").out


def test_withdrawn_images_are_marked_and_can_be_listed_alone(cluster: Cluster) -> None:
    more = '[lifecycle]\nstatus = "withdrawn"\nnote = "wrong results; use other"'
    recipe = write_recipe(cluster.folder / "recipes", "tool", more=more)
    finish(recipe, None, registry=cluster.registry, progress=QUIET)
    done = cluster.ok("store", "usage", "--withdrawn")
    assert done.out.startswith("tool:1.0-1  [withdrawn] ")
    assert done.out.endswith("wrong results; use other\n")
    assert [row["status"] for row in cluster.ok("store", "usage", "--json").json()].count("active") == 1


def test_a_registry_that_is_gone_leaves_the_status_unknown(cluster: Cluster) -> None:
    (cluster.folder / "images").rename(cluster.folder / "away")
    (cluster.folder / "images").write_text("no folder")
    done = cluster.ok("store", "usage", "--json")
    assert {row["status"] for row in done.json()} == {""}
    done = cluster.ok("store", "usage", SINGFACTORY_RETRY_BUDGET="1")
    assert "[" not in done.out


def test_leases_that_cannot_be_read_are_counted(cluster: Cluster) -> None:
    (lease, *_) = sorted((cluster.store.root / "leases").iterdir())
    lease.write_text("{}")
    rows = cluster.ok("store", "usage", "--json").json()
    assert sum(row["unreadable"] for row in rows) == 1

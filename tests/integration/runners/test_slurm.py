"""Builds on the node of a real SLURM: candidates, errors, and cleanup after an interrupt."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, ROOT, Done, Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

SLOW = DEFINITION + "    echo slow; sleep 300\n"


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    why = missing()
    if why and os.geteuid() != 0:
        pytest.skip(why)
    if why:
        pytest.fail(why, pytrace=False)
    with slurm_cluster() as found:
        yield found


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    yield running_cluster
    running_cluster.wait_until_empty()
    running_cluster.clean()


@pytest.fixture
def project(project: Project, cluster: Cluster) -> Project:
    """A factory on the cluster, whose builds take their temporary folder from the job."""
    env = {**project.env, **cluster.env}
    del env["SINGFACTORY_TMPDIR"], env["TMPDIR"]
    return Project(project.folder, env, project.base)


def build(project: Project, name: str, *more: str, **env: str) -> Done:
    return project.run("build", name, "--runner", "slurm", *more, **env)


def told(text: str) -> list[str]:
    """Lines of output without values that differ between runs."""
    return re.sub(r"singfactory-sources[\w.]+|(?<=job )\d+", "N", text).splitlines()


def left_on_node(cluster: Cluster) -> list[str]:
    """Files that jobs left in their folders on the node's disk."""
    return cluster.on_node(f"find {cluster.node_only} -mindepth 2").splitlines()


def begin(project: Project, cluster: Cluster, *more: str) -> subprocess.Popen[str]:
    """Start a build that takes minutes; returns when its %post runs on the node."""
    project.recipe("slow", definition=SLOW)
    process = project.start("build", "slow", "--runner", "slurm", *more)
    log = project.folder / ".singfactory/candidates/slow-amd64/build.log"
    wait_for(lambda: log.is_file() and "\nslow\n" in log.read_text(), 60, lambda: f"no build begins: {cluster.jobs()}")
    return process


def end_of(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def test_a_recipe_is_built_on_the_node_and_published_from_here(project: Project, cluster: Cluster) -> None:
    recipe = project.recipe("tool", definition=DEFINITION + '    echo "in job"\n') / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[build]", '[build]\nrunner = "slurm"'))
    done = project.ok("build", "tool", "--json")
    (row,) = done.json()
    image = Path(row["path"])
    assert row["sif_digest"] == "sha256:" + hashlib.sha256(image.read_bytes()).hexdigest()
    assert "tool: building in SLURM job " in done.err
    assert " on node1\n" in done.err
    made = project.ok("make", "tool", "--json").json()["made"][0]
    assert (made["release"]["sif_digest"], made["tests"]) == (row["sif_digest"], "1 passed")
    assert left_on_node(cluster) == []
    assert project.leftovers() == []


def test_an_existing_candidate_is_not_rebuilt_unless_forced(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    project.ok("build", "tool", "--runner", "slurm")
    again = build(project, "tool")
    assert "SLURM" not in again.err
    assert "was already built from the same inputs" in again.err
    assert "building in SLURM job" in build(project, "tool", "--force").err
    cluster.wait_until_empty(5)


def test_options_apply_on_the_node(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    project.recipe("lower")
    project.ok("make", "lower", "--registry", f"oci:{tmp_path}/images")
    project.recipe("upper", base="recipe://lower", definition=DEFINITION.replace("docker", "recipe"), more="")
    done = build(project, "upper", "--registry", f"oci:{tmp_path}/images", "-o", str(tmp_path / "candidates"))
    assert (done.code, done.out.strip()) == (0, f"{tmp_path}/candidates/upper-amd64/image.sif"), done.err
    cluster.wait_until_empty(5)


def test_a_machine_without_an_engine_builds_on_nodes_that_have_one(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    cluster.set_on_node(SINGFACTORY_ENGINE=project.env["SINGFACTORY_ENGINE"])
    done = build(project, "tool", SINGFACTORY_ENGINE="/nowhere/apptainer")
    assert done.code == 0, done.err


def test_a_failed_build_is_reported_like_a_local_failure(project: Project, cluster: Cluster) -> None:
    project.recipe("broken", definition=DEFINITION + "    echo the reason; no-such-program --flag\n")
    here, there = project.run("build", "broken"), build(project, "broken")
    assert there.code == here.code == 6
    assert "    the reason\n" in here.err
    begun, *failed = told(here.err)
    assert begun.startswith("building broken; the log is ")
    assert told(there.err) == ["broken: building in SLURM job N on node1", *failed]
    assert left_on_node(cluster) == []


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        (("10MB", "900TB"), 8, "900.0 TB"),
        (("busybox:1", "busybox:none"), 3, "does not exist"),
    ],
)
def test_the_exit_code_is_that_of_the_build(
    project: Project, cluster: Cluster, changed: tuple[str, str], code: int, said: str
) -> None:
    recipe = project.recipe("tool") / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(*changed))
    done = build(project, "tool")
    assert done.code == code, done.err
    assert said in done.err
    cluster.wait_until_empty(5)


def test_an_invalid_partition_is_an_error(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    done = build(project, "tool", SINGFACTORY_SLURM_PARTITION="nowhere")
    assert done.code == 2
    assert done.err.splitlines() == [
        "singfactory: SLURM rejects the job that builds tool",
        "  Invalid partition name specified",
        "  check slurm_partition, slurm_account and slurm_options in factory.toml, build.timeout in recipe.toml",
    ]
    cluster.wait_until_empty(5)


def test_a_candidates_folder_that_is_not_shared_is_refused_before_the_build(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    done = build(project, "tool", "-o", str(cluster.node_only / "candidates"))
    assert done.code == 2
    assert done.err.splitlines()[1:] == [
        f"singfactory: cannot build tool on node1: it does not see {cluster.node_only}/candidates",
        "  this machine and the compute nodes must share the project, the candidates and Python",
        "  put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
    ]


def test_waiting_in_the_queue_is_reported_and_sigterm_cancels_the_job(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    process = project.start("build", "tool", "--runner", "slurm", SINGFACTORY_SLURM_PARTITION="closed")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("tool: SLURM job ")
    assert line.endswith(" s (PartitionDown); Ctrl-C cancels it\n")
    assert [job.split()[1:] for job in cluster.jobs()] == [["singfactory-tool", "PENDING", "closed"]]
    process.terminate()
    assert end_of(process).code == 130
    cluster.wait_until_empty(5)


def test_sigterm_ends_the_build_on_the_node_and_nothing_is_left(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    assert len(cluster.jobs()) == 1
    process.terminate()
    assert end_of(process).code == 130
    cluster.wait_until_empty(5)
    assert left_on_node(cluster) == []
    assert project.leftovers() == []


def test_when_singfactory_is_killed_its_job_ends(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    process.kill()
    process.communicate(timeout=10)
    cluster.wait_until_empty(30)


def test_a_cancelled_job_is_reported(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    cluster.ask("scancel", "--name=singfactory-slow")
    done = end_of(process)
    assert done.code == 6
    assert "singfactory: the SLURM job of slow was cancelled\n  STEP " in done.err
    assert "CANCELLED AT" in done.err


def test_a_node_failure_is_retryable(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    cluster.ask("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    try:
        done = end_of(process)
    finally:
        cluster.resume()
    assert done.code == 4
    # SLURM reports it for the job ("Node failure on node1") or for the step, whichever comes first.
    failed = r"singfactory: SLURM ended the build of slow: its node failed\n  .*node failure.*\n  try again\n"
    assert re.search(failed, done.err, re.IGNORECASE), done.err


def test_inside_a_job_the_build_is_a_job_step(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    command = [sys.executable, "-m", "factory.cli", "build", "tool", "--runner", "slurm"]
    done = subprocess.run(
        ["srun", "--cpus-per-task=2", f"--chdir={project.folder}", *command],
        env={**project.env, "PYTHONPATH": str(ROOT), "SINGFACTORY_SLURM_PARTITION": "closed"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "with the resources of SLURM job " in done.stderr
    assert "tool: building in SLURM job " in done.stderr
    cluster.wait_until_empty(5)

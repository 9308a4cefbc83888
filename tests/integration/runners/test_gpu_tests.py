"""GPU tests of published releases on the node of a real SLURM. There is no GPU there: they say so."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.factory_project import TEST, Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

GPU_TEST = '\n[[test]]\nname = "device"\nrun = "test -e /dev/nvidiactl"\ngpu = true\n'


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
    """A factory on the cluster with a published GPU image. Its nodes have no generic resources."""
    env = {**project.env, **cluster.env, "SINGFACTORY_SLURM_GPU_OPTIONS": "--cpus-per-task=1"}
    folder = project.recipe("tool", more=TEST + GPU_TEST)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("[run]\n", '[run]\ngpu = "nvidia"\n'))
    found = Project(project.folder, env, project.base)
    found.ok("make", "tool")
    return found


def untested(project: Project) -> bool:
    """Whether a release has its own report only, and everything says that it is untested."""
    shown = project.ok("show", "tool", "--json").json()
    listed = project.ok("list").out
    return len(shown["test_reports"]) == 1 and shown["gpu_tests"] == [] and "[untested on GPU]" in listed


def test_a_node_without_a_gpu_leaves_a_release_untested(project: Project, cluster: Cluster) -> None:
    secret = {"SINGFACTORY_USERNAME": "robot", "SINGFACTORY_PASSWORD": "hunter2", "GITHUB_TOKEN": "hunter2"}
    done = project.run("test", "tool", "--gpu", "--runner", "slurm", **secret)
    assert done.code == 7, done.err
    assert "tool: SLURM job " in done.err
    assert "tool:1.0-1 is untested on GPU: nothing was attached to it" in done.err
    assert untested(project)
    (folder,) = (project.folder / ".singfactory/gpu-tests").iterdir()
    assert "testing on node1 in SLURM job " in (folder / "log").read_text()
    assert all("hunter2" not in path.read_text() for path in folder.iterdir())
    cluster.wait_until_empty(10)


def test_other_tests_than_those_of_the_release_are_never_run_on_it(project: Project, cluster: Cluster) -> None:
    path = project.folder / "recipes/tool/recipe.toml"
    path.write_text(path.read_text().replace("/dev/nvidiactl", "/made"))
    done = project.run("test", "tool:1.0-1", "--gpu", "--runner", "slurm")
    assert (done.code, done.out) == (2, "")
    assert "this checkout does not have the tests that tool:1.0-1 was published with" in done.err
    assert "git checkout " in done.err
    assert cluster.jobs() == []


def test_ctrl_c_cancels_the_job(project: Project, cluster: Cluster) -> None:
    process = project.start("test", "tool", "--gpu", "--runner", "slurm", SINGFACTORY_SLURM_GPU_OPTIONS="--hold")
    wait_for(lambda: len(cluster.jobs()) == 1, 60, lambda: f"no job: {cluster.jobs()}")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    cluster.wait_until_empty(30)


def test_what_slurm_rejects_is_explained(project: Project, cluster: Cluster) -> None:
    done = project.run("test", "tool", "--gpu", "--runner", "slurm", SINGFACTORY_SLURM_GPU_PARTITION="nowhere")
    assert done.code == 2
    assert "SLURM rejects the job that tests tool" in done.err
    assert "slurm_gpu_partition" in done.err
    assert cluster.jobs() == []


def test_only_published_images_of_this_registry_run_on_the_cluster(project: Project) -> None:
    image = project.ok("path", "tool").out.strip() if project.run("pull", "tool").code == 0 else ""
    for words in (["tool", "--image", image], ["ghcr.io/stranger/images/tool"]):
        done = project.run("test", *words, "--gpu", "--runner", "slurm")
        assert done.code == 2, done.err
    alone = project.run("test", "--gpu", "--runner", "slurm", "--untested", SINGFACTORY_SLURM_GPU_PARTITION="nowhere")
    assert "SLURM rejects the job that tests tool" in alone.err

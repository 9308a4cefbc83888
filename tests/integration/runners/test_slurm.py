"""Builds as jobs of a real SLURM: candidates, errors, order, and what outlives the process that submitted them."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, ROOT, Done, Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

SLOW = DEFINITION + "    echo slow; sleep 300\n"
SHORT = SLOW.replace("300", "4")  # long enough to be left alone


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


def begin(project: Project, cluster: Cluster, definition: str = SLOW) -> subprocess.Popen[str]:
    """Start a build that takes minutes; returns when its %post runs on the node."""
    project.recipe("slow", definition=definition)
    process = project.start("build", "slow", "--runner", "slurm")
    wait_until_slow(project, cluster)
    return process


def wait_until_slow(project: Project, cluster: Cluster) -> None:
    log = project.folder / ".singfactory/candidates/slow-amd64/build.log"
    wait_for(lambda: log.is_file() and "\nslow\n" in log.read_text(), 60, lambda: f"no build begins: {cluster.jobs()}")


def chain(project: Project, *names: str) -> None:
    """Recipes that are based on each other, the first on the test's base."""
    for below, name in zip(("", *names), names, strict=False):
        definition = DEFINITION.replace("docker", "recipe") if below else DEFINITION
        project.recipe(name, base=f"recipe://{below}" if below else "", definition=definition)


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
    assert told(there.err) == [
        "broken: SLURM job N is submitted",
        "broken: building in SLURM job N on node1",
        *failed,
    ]
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
    assert done.code == 2, done.err
    assert done.err.splitlines()[-3:] == [
        f"singfactory: cannot build tool on the node: it does not see {cluster.node_only}/candidates",
        "  this machine and the compute nodes must share the project, the candidates and Python",
        "  put them on the cluster's shared file system; for candidates set work = … in factory.toml, or use -o",
    ]


def test_a_project_that_is_not_shared_is_refused_before_the_build(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    hidden = Project(cluster.node_only / "project", project.env, project.base)
    hidden.folder.mkdir()
    (hidden.folder / "factory.toml").write_text((project.folder / "factory.toml").read_text())
    hidden.recipe("tool")
    done = build(hidden, "tool", "-o", str(tmp_path))
    assert (done.code, f"cannot build tool on node1: it does not see {hidden.folder}\n" in done.err) == (2, True), (
        done.err
    )


def test_folders_with_blanks_quotes_and_commands_in_their_names(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    project.recipe("tool")
    folder = tmp_path / """it's a "folder" 100%a; $(touch hacked) `touch hacked`"""
    done = build(project, "tool", "-o", str(folder))
    assert (done.code, done.out.strip()) == (0, f"{folder}/tool-amd64/image.sif"), done.err
    assert not list(project.folder.rglob("hacked"))
    cluster.wait_until_empty(5)


def test_waiting_in_the_queue_is_reported_and_sigterm_cancels_the_job(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    process = project.start("build", "tool", "--runner", "slurm", SINGFACTORY_SLURM_PARTITION="closed")
    assert process.stderr is not None
    assert process.stderr.readline().endswith(" is submitted\n")
    line = process.stderr.readline()
    assert line.startswith("tool: SLURM job ")
    assert line.endswith(" s (PartitionDown); Ctrl-C cancels it\n")
    assert [job.split()[1:] for job in cluster.jobs()] == [["singfactory-tool", "PENDING", "closed"]]
    process.terminate()
    assert end_of(process).code == 130
    cluster.wait_until_empty(5)


def test_an_interrupted_build_is_ended_on_the_node_and_nothing_is_left(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    assert len(cluster.jobs()) == 1
    process.send_signal(signal.SIGINT)
    done = end_of(process)
    assert (done.code, "slow: ending the build on the cluster" in done.err) == (130, True), done.err
    cluster.wait_until_empty(5)
    assert left_on_node(cluster) == []
    assert project.leftovers() == []
    again = project.run("build", "slow", "--attach")
    assert (again.code, again.err.splitlines()[0]) == (3, "singfactory: no SLURM job of slow is known")


def test_a_second_interrupt_ends_the_job_at_once(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster, SLOW.replace("echo slow", "trap '' TERM; echo slow"))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    for line in process.stderr:
        if "press Ctrl-C again" in line:
            break
    process.send_signal(signal.SIGINT)
    assert end_of(process).code == 130
    cluster.wait_until_empty(30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_build_survives_its_client_and_can_be_followed_to_its_result(
    project: Project, cluster: Cluster, number: signal.Signals
) -> None:
    process = begin(project, cluster, SHORT)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    (job,) = cluster.jobs()
    if number != signal.SIGKILL:
        assert f"slow: SLURM job {job.split()[0]} goes on; to follow it: singfactory build slow --attach\n" in err
    if number == signal.SIGKILL:
        cluster.wait_until_empty()  # nobody watched when it ended
    done = project.ok("build", "slow", "--attach", "-v")
    image = project.folder / ".singfactory/candidates/slow-amd64/image.sif"
    assert done.out.strip() == str(image)
    assert f"slow: following SLURM job {job.split()[0]}, submitted 0 min ago\n" in done.err
    assert "\nslow\n" in done.err  # its whole log
    assert "already built" in project.ok("build", "slow").err


def test_a_build_that_failed_while_nobody_watched_is_reported_later(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster, SHORT + "    echo the reason; false\n")
    process.kill()
    process.communicate(timeout=10)
    cluster.wait_until_empty()
    done = project.run("build", "slow", "--attach")
    assert (done.code, "    the reason\n" in done.err) == (6, True), done.err


def test_a_running_build_of_the_same_inputs_is_followed_and_another_is_named(
    project: Project, cluster: Cluster
) -> None:
    first = begin(project, cluster, SHORT.replace("4", "9"))
    (job,) = cluster.jobs()
    number = job.split()[0]
    recipe = project.folder / "recipes/slow/image.def"
    text = recipe.read_text()
    recipe.write_text(text + "    true\n")
    other = build(project, "slow")
    assert (other.code, other.err.splitlines()) == (
        9,
        [
            f"singfactory: SLURM job {number} is building slow from other files than the ones here",
            "  the recipe, its base or its files have changed since it was submitted",
            f"  cancel it: scancel {number}, or wait for it: singfactory build slow --attach",
        ],
    )
    recipe.write_text(text)
    second = project.ok("make", "slow", "--runner", "slurm", "--json")
    assert f"slow: following SLURM job {number}, submitted 0 min ago\n" in second.err
    assert second.json()["made"][0]["release"]["tag"] == "1.0-1"
    assert end_of(first).code == 0


def test_three_recipes_in_dependency_order_are_submitted_together_and_published(
    project: Project, cluster: Cluster
) -> None:
    chain(project, "python", "science", "torch")
    done = project.ok("make", "--runner", "slurm", "--json")
    jobs = dict(re.findall(r"^(\w+): SLURM job (\d+) is submitted$", done.err, re.MULTILINE))
    assert list(jobs) == ["python", "science", "torch"]
    assert done.err.index("torch: SLURM job") < done.err.index("python: building in SLURM job")
    made = {row["recipe"]: row for row in done.json()["made"]}
    assert [row["release"]["tag"] for row in made.values()] == ["1.0-1"] * 3
    assert [row["tests"] for row in made.values()] == ["1 passed"] * 3
    shown = cluster.ask("scontrol", "--oneliner", "show", "job", jobs["torch"])
    assert "JobState=COMPLETED" in shown
    assert project.ok("make", "--runner", "slurm").out.count("unchanged") == 3


def test_a_failed_base_takes_the_jobs_of_its_dependents_out_of_the_queue(project: Project, cluster: Cluster) -> None:
    chain(project, "python", "science", "torch")
    tests = project.folder / "recipes/python/recipe.toml"
    tests.write_text(tests.read_text().replace('stdout = "made"', 'stdout = "something else"'))
    done = project.run("make", "--runner", "slurm")
    assert done.code == 7, done.err
    assert "singfactory: python: 1 of 1 tests failed: made\n" in done.err
    assert "science (amd64) is not built\n  its base python failed\n" in done.err
    assert "torch (amd64) is not built\n  its base science failed\n" in done.err
    assert "science: building" not in done.err
    cluster.wait_until_empty(15)


def test_independent_recipes_are_one_job_array_whose_members_can_be_cancelled(
    project: Project, cluster: Cluster
) -> None:
    project.recipe("first")
    project.recipe("slow", definition=SLOW)
    project.recipe("third")
    process = project.start("build", "first", "slow", "third", "--runner", "slurm")
    wait_until_slow(project, cluster)
    (member,) = [job.split()[0] for job in cluster.jobs() if job.split()[0].endswith("_1")]
    cluster.ask("scancel", member)
    done = end_of(process)
    assert done.code == 6, done.err
    assert f"first, slow, third: SLURM job {member[:-2]} is submitted\n" in done.err
    assert "singfactory: the SLURM job of slow was cancelled\n  JOB " in done.err
    assert [Path(line).parent.name for line in done.out.splitlines()] == ["first-amd64", "third-amd64"]


def test_a_controller_that_does_not_answer_loses_no_build(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    impatient = tmp_path / "slurm.conf"  # of the client alone: so that it waits less for each answer
    impatient.write_text(Path(cluster.env["SLURM_CONF"]).read_text() + "MessageTimeout=2\n")
    project.env["SLURM_CONF"] = str(impatient)  # type: ignore[index]
    process = begin(project, cluster, SHORT)
    controller = int((cluster.folder / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGSTOP)
    try:
        done = end_of(process)
    finally:
        os.kill(controller, signal.SIGCONT)
    assert done.code == 0, done.err
    assert done.out.endswith("slow-amd64/image.sif\n")


def test_a_cancelled_job_is_reported(project: Project, cluster: Cluster) -> None:
    process = begin(project, cluster)
    cluster.ask("scancel", "--name=singfactory-slow")
    done = end_of(process)
    assert done.code == 6
    assert "singfactory: the SLURM job of slow was cancelled\n  JOB " in done.err
    assert "CANCELLED AT" in done.err


def test_a_build_whose_job_slurm_starts_again_begins_anew_and_is_followed_further(
    project: Project, cluster: Cluster
) -> None:
    process = begin(project, cluster, SHORT)
    (job,) = cluster.jobs()
    cluster.requeue(job.split()[0])
    done = end_of(process)
    assert done.code == 0, done.err
    assert f"slow: SLURM starts job {job.split()[0]} again on node1" in done.err


def test_inside_a_job_the_build_runs_right_there(project: Project, cluster: Cluster) -> None:
    project.recipe("tool")
    command = [sys.executable, "-m", "factory.cli", "build", "tool", "--runner", "slurm"]
    done = subprocess.run(
        ["srun", f"--chdir={project.folder}", *command],
        env={**project.env, "PYTHONPATH": str(ROOT), "SINGFACTORY_SLURM_PARTITION": "closed"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tool is built here, with the resources of SLURM job " in done.stderr
    cluster.wait_until_empty(5)


def test_on_a_login_node_builds_go_to_slurm_by_themselves_and_never_run_there(
    project: Project, cluster: Cluster
) -> None:
    project.recipe("tool")
    on_login = {"SINGFACTORY_LOGIN_NODES": f"other* {os.uname().nodename[:3].upper()}*"}
    refused = project.run("build", "tool", "--runner", "local", **on_login)
    assert (refused.code, refused.err.splitlines()) == (
        2,
        [
            "singfactory: tool is not built here: this is a login node",
            "  its name matches login_nodes (SINGFACTORY_LOGIN_NODES)",
            "  singfactory build tool --runner slurm",
        ],
    )
    done = project.ok("build", "tool", **on_login)
    assert "tool is built with SLURM: this is a login node\n" in done.err
    assert "tool: building in SLURM job " in done.err
    allowed = project.ok("build", "tool", "--force", **on_login, SINGFACTORY_LOGIN_BUILDS="allowed")
    assert "SLURM" not in allowed.err
    cluster.wait_until_empty(5)


def test_a_recipe_that_needs_more_disk_than_here_goes_to_slurm(project: Project, cluster: Cluster) -> None:
    project.recipe("large", disk="900TB")
    done = project.run("build", "large", SINGFACTORY_SLURM_PARTITION="build")
    assert "large is built with SLURM: it needs 900.0 TB of disk, and " in done.err
    assert "large: building in SLURM job " in done.err
    assert done.code == 8, done.err  # there is not enough on the node, either
    cluster.wait_until_empty(5)

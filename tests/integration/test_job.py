"""`singfactory job` on a real SLURM: what is submitted runs, and what cannot run is refused with a reason."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster, wait_for

# Programs that show what they are started with, under the names that the shapes of jobs start.
PROGRAMS = (
    DEFINITION
    + r"""    printf '#!/bin/sh\necho torchrun: "$@"\n' >/bin/torchrun
    printf '#!/bin/sh\necho jupyter: "$@"\nenv >seen\nwhile [ ! -e stop ]; do sleep 0.2; done\n' >/bin/jupyter
    chmod 755 /bin/torchrun /bin/jupyter
"""
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    why = missing()
    if why and os.geteuid() != 0:
        pytest.skip(why)
    if why:
        pytest.fail(why, pytrace=False)
    with slurm_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def site(new_project: Callable[[], Project], cluster: Cluster) -> Project:
    """A user of the cluster whose registry has one image, `tool`."""
    empty = new_project()
    env = {
        **empty.env,
        **cluster.env,
        "PATH": f"{Path(sys.executable).parent}:{empty.env['PATH']}",
        "SINGFACTORY_REGISTRY": f"oci:{empty.folder}/images",
    }
    del env["SINGFACTORY_TMPDIR"], env["TMPDIR"]
    project = Project(empty.folder, env, empty.base)
    project.recipe("tool", definition=PROGRAMS)
    project.ok("make", "tool")
    return project


@pytest.fixture
def user(site: Project, tmp_path: Path) -> Project:
    """The same user in an empty folder."""
    return Project(tmp_path, site.env, site.base)


def submitted(user: Project, *arguments: str) -> str:
    """Submit a job; return its ID."""
    done = user.ok("job", "--submit", *arguments)
    found = re.match(r"submitted job (\d+): tool:1\.0-1 \(sha256:[0-9a-f]{64}\)\n", done.out)
    assert found, done.out
    return found[1]


def log_of(user: Project, cluster: Cluster, name: str) -> str:
    """The log of a job that has ended."""
    cluster.wait_until_empty(60)
    wait_for((user.folder / name).exists, 10, lambda: str(sorted(user.folder.iterdir())))
    return (user.folder / name).read_text()


def test_a_submitted_job_runs_the_program_in_the_image_that_was_current_when_it_was_submitted(
    user: Project, cluster: Cluster
) -> None:
    number = submitted(user, "tool", "--time", "5", "--", "sh", "-c", 'cat /made; echo "$GREETING $1"', "x", "a  b")
    log = log_of(user, cluster, f"tool-{number}.out")
    assert "made\nhello a  b\n" in log
    assert "staged tool" in log
    script = user.folder / f"tool-{number}.sh"
    assert re.search(r"^image=tool@sha256:[0-9a-f]{64}$", script.read_text(), re.MULTILINE)
    assert sorted(path.name for path in user.folder.iterdir()) == [f"tool-{number}.out", script.name]


def test_each_task_of_an_array_has_a_log_of_its_own(user: Project, cluster: Cluster) -> None:
    number = submitted(user, "--array", "3-5%2", "tool", "--", "sh", "-c", "echo task $SLURM_ARRAY_TASK_ID")
    logs = [log_of(user, cluster, f"tool-{number}_{task}.out") for task in (3, 4, 5)]
    assert ["task 3" in logs[0], "task 4" in logs[1], "task 5" in logs[2]] == [True] * 3


def test_every_rank_of_an_mpi_job_is_started_by_srun(user: Project, cluster: Cluster) -> None:
    number = submitted(
        user, "--mpi", "--pmi=pmi2", "--tasks-per-node=2", "tool", "--", "sh", "-c", "echo rank $PMI_RANK of $PMI_SIZE"
    )
    log = log_of(user, cluster, f"tool-{number}.out")
    assert "rank 0 of 2" in log
    assert "rank 1 of 2" in log


def test_torchrun_is_started_once_a_node_and_meets_at_the_first(user: Project, cluster: Cluster) -> None:
    number = submitted(user, "--torchrun", "--no-gpu", "tool", "--", "python", "train.py", "--lr", "0.1")
    log = log_of(user, cluster, f"tool-{number}.out")
    assert re.search(
        rf"torchrun: --nnodes=1 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-id={number}-0 "
        r"--rdzv-endpoint=\S+:\d+ train.py --lr 0.1\n",
        log,
    ), log


def test_a_notebook_tells_its_owner_and_nobody_else_how_to_reach_it(user: Project, cluster: Cluster) -> None:
    number = submitted(user, "--notebook", "tool")
    address, seen = user.folder / f"tool-{number}.address", user.folder / "seen"
    wait_for(lambda: seen.exists() and "JUPYTER_TOKEN" in seen.read_text(), 30, lambda: str(cluster.jobs()))
    text = address.read_text()
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    found = re.search(r"ssh -N -L (\d+):(\S+):\1 \S+@\S+\n.*http://localhost:\1/lab\?token=([0-9a-f]{48})\n", text)
    assert found, text
    assert f"JUPYTER_TOKEN={found[3]}\n" in seen.read_text()
    (user.folder / "stop").touch()
    log = log_of(user, cluster, f"tool-{number}.out")
    assert f"jupyter: lab --no-browser --ip=0.0.0.0 --port={found[1]} " in log
    assert found[3] not in log
    assert not address.exists()


def test_a_job_that_is_requeued_starts_again_and_adds_to_its_log(user: Project, cluster: Cluster) -> None:
    number = submitted(user, "tool", "--", "sh", "-c", "echo begun; test -e again || { touch again; sleep 300; }")
    wait_for((user.folder / "again").exists, 30, lambda: str(cluster.jobs()))
    cluster.requeue(number)
    path = user.folder / f"tool-{number}.out"
    wait_for(lambda: path.read_text().count("begun") == 2, 60, lambda: f"{cluster.jobs()} {path.read_text()}")
    cluster.wait_until_empty(60)


def test_the_job_holds_its_image_until_it_has_ended(user: Project, cluster: Cluster) -> None:
    number = submitted(user, "tool", "--", "true")
    leases = [path.name for path in (Path(user.env["SINGFACTORY_STORE"]) / "leases").iterdir()]
    assert any(f".job-{number}" in name for name in leases), leases
    cluster.wait_until_empty(60)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--partition=nowhere", "tool", "--", "true"), 2, "invalid partition"),
        (("--time=2h", "tool", "--", "true"), 2, "--time '2h'"),
        (("--nodes=0", "tool", "--", "true"), 2, "'0' is not a number"),
        (("--array=0-9", "--torchrun", "tool", "--", "train.py"), 2, "--array and --torchrun"),
        (("tool",), 2, "job needs a program"),
        (("tol", "--", "true"), 3, "tol"),
    ],
)
def test_a_job_that_cannot_run_is_refused_and_leaves_nothing(
    user: Project, cluster: Cluster, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = user.run("job", "--submit", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert len(done.err.splitlines()) <= 4
    assert list(user.folder.iterdir()) == []
    assert cluster.jobs() == []


def test_without_slurm_the_script_is_printed_all_the_same(user: Project, tmp_path: Path) -> None:
    done = user.run("job", "--submit", "tool", "--", "true", PATH=str(tmp_path))
    assert done.code == 9
    assert "sbatch was not found" in done.err
    assert done.out == user.ok("job", "tool", "--", "true").out


def test_a_script_does_not_replace_another_file(user: Project) -> None:
    user.ok("job", "--output", "run.sh", "tool", "--", "true")
    user.ok("job", "--output", "run.sh", "tool", "--", "true")
    (user.folder / "run.sh").write_text("# mine\n")
    done = user.run("job", "--output", "run.sh", "tool", "--", "true")
    assert (done.code, "--force" in done.err) == (8, True)
    assert (user.folder / "run.sh").read_text() == "# mine\n"
    user.ok("job", "--output", "run.sh", "--force", "tool", "--", "true")

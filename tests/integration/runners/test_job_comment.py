"""A job of a real SLURM whose comment names the images that it has run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.factory_project import Project
from tests.integration.runners.slurm_cluster import Cluster, missing, slurm_cluster

# Notes each request to slurmctld, and passes it on.
SCONTROL = """\
#!/bin/sh
echo "$*" >> "$REQUESTS"
exec {scontrol} "$@"
"""


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
def pulled(new_project: Callable[[], Project], cluster: Cluster) -> Project:
    project = new_project()
    project.recipe("tool")
    project.ok("make", "tool")
    project.ok("pull", "tool")
    programs = project.folder / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text(SCONTROL.format(scontrol=shutil.which("scontrol")))
    (programs / "scontrol").chmod(0o755)
    env = {**project.env, **cluster.env, "PATH": f"{programs}:{project.env['PATH']}"}
    return Project(project.folder, {**env, "SINGFACTORY_JOB_COMMENT": "true"}, project.base)


def submitted(cluster: Cluster, project: Project, tmp_path: Path, body: str, *options: str) -> str:
    """Submit a job and wait for its end; returns its ID. REQUESTS: where scontrol's requests are noted."""
    script = tmp_path / "job.sh"
    exports = "".join(f"export {name}='{text}'\n" for name, text in project.env.items() if name.startswith("SINGF"))
    run = f"{sys.executable} -m factory.cli exec -q tool true"
    (tmp_path / "requests").touch()
    script.write_text(
        f"#!/bin/sh\n{exports}export HOME='{project.env['HOME']}' PATH='{project.env['PATH']}'\n"
        f"export PYTHONPATH='{project.env['PYTHONPATH']}' REQUESTS='{tmp_path}/requests'\n{body.format(run=run)}\n"
    )
    command = ["sbatch", "--parsable", "--wait", f"--output={tmp_path}/out", f"--chdir={project.folder}", *options]
    out = cluster.ask(*command, str(script), seconds=120)
    return out.strip().partition(";")[0]


def comment(cluster: Cluster, job: str) -> str:
    match = re.search(r"Comment=(.*)", cluster.ask("scontrol", "show", "job", job))
    return match[1] if match else ""


def updates(tmp_path: Path) -> list[str]:
    return [line for line in (tmp_path / "requests").read_text().splitlines() if line.startswith("update")]


def test_one_task_of_a_job_adds_the_image_to_what_the_user_has_written(
    cluster: Cluster, pulled: Project, tmp_path: Path
) -> None:
    job = submitted(cluster, pulled, tmp_path, "srun -n2 {run}\nsrun -n2 {run}\n{run}", "-n2", "--comment=my own words")
    assert re.fullmatch(r"my own words; singfactory=tool:1\.0-1@sha256:[0-9a-f]{64}\s*", comment(cluster, job))
    assert len(updates(tmp_path)) == 1
    assert (tmp_path / "out").read_text() == ""


def test_an_array_makes_the_request_once_for_all_its_tasks(cluster: Cluster, pulled: Project, tmp_path: Path) -> None:
    job = submitted(cluster, pulled, tmp_path, "{run}", "--array=0-3")
    assert comment(cluster, job).startswith("singfactory=tool:1.0-1@sha256:")
    assert len(updates(tmp_path)) == 1


def test_a_site_that_refuses_the_request_fails_no_run(cluster: Cluster, pulled: Project, tmp_path: Path) -> None:
    refusing = pulled.folder / "refusing"
    refusing.mkdir()
    (refusing / "scontrol").write_text('#!/bin/sh\necho "$*" >> "$REQUESTS"; echo refused >&2; exit 1\n')
    (refusing / "scontrol").chmod(0o755)
    project = Project(pulled.folder, {**pulled.env, "PATH": f"{refusing}:{pulled.env['PATH']}"}, pulled.base)
    submitted(cluster, project, tmp_path, "{run} && {run} && echo done")
    assert (tmp_path / "out").read_text() == "done\n"
    assert len(updates(tmp_path)) == 1

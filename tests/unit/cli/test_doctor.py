"""`singfactory doctor` on a login node, a compute node and a laptop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory.engine.engine import APPTAINER, SINGULARITY
from factory.engine.holes import HOLES, known_holes
from tests.unit.cli.cluster import Cluster

HOST = os.uname().nodename.partition(".")[0]
ASK, WORKS, SECURITY = "ask the administrator", "what works", "security"


def rows(cluster: Cluster, env: Mapping[str, str], code: int = 0) -> dict[str, dict[str, str]]:
    """The rows of `doctor`, by topic and name."""
    done = cluster.run("doctor", "--json", **env)
    assert done.code == code, done.err + done.out
    found: dict[str, dict[str, str]] = {}
    for row in done.json():
        found.setdefault(row["topic"], {})[row["name"]] = row["value"]
    return found


def engine(cluster: Cluster, version: str, *, setuid: bool = False) -> dict[str, str]:
    """An engine of a version, with or without a setuid starter."""
    program = cluster.folder / "prefix/bin/apptainer"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" || exit 1\n')
    program.chmod(0o755)
    if setuid:
        starter = cluster.folder / "prefix/libexec/apptainer/bin/starter-suid"
        starter.parent.mkdir(parents=True)
        starter.touch()
        starter.chmod(0o4755)
    return {"SINGFACTORY_ENGINE": str(program)}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def without_slurm(cluster: Cluster) -> dict[str, str]:
    """PATH with what the machine's programs need, but no sbatch."""
    folder = cluster.folder / "bin"
    folder.mkdir()
    for name in ("sh", "tail", "unshare", "true"):
        found = next(path for path in (Path("/bin") / name, Path("/usr/bin") / name) if path.exists())
        (folder / name).symlink_to(found)
    return {"PATH": str(folder)}


def with_slurm(cluster: Cluster) -> dict[str, str]:
    env = without_slurm(cluster)
    (cluster.folder / "bin/sbatch").symlink_to("/bin/true")
    return env


def test_a_laptop_has_no_slurm_and_needs_none(cluster: Cluster) -> None:
    found = rows(cluster, without_slurm(cluster))
    assert found[WORKS]["kind"].startswith("no cluster's node")
    assert found[WORKS]["can pull"].startswith("yes: from oci:")
    assert found[WORKS]["can submit"].startswith("no")
    assert "names of login nodes" not in found.get(ASK, {})


def test_a_login_node_is_one_by_its_name_and_its_builds_go_to_slurm(cluster: Cluster) -> None:
    found = rows(cluster, {"SINGFACTORY_LOGIN_NODES": f"other* {HOST[:-1]}?", **with_slurm(cluster)})
    assert found[WORKS]["kind"] == "login node: its name matches login_nodes (SINGFACTORY_LOGIN_NODES)"
    assert "--runner slurm" in found[WORKS]["can build"]
    assert found[WORKS]["can submit"] == "yes"


def test_a_machine_with_slurm_and_without_a_job_is_taken_for_a_login_node_that_the_site_should_name(
    cluster: Cluster,
) -> None:
    found = rows(cluster, with_slurm(cluster))
    assert found[WORKS]["kind"].startswith("login node: SLURM's sbatch is here")
    assert "login_nodes = [" in found[ASK]["names of login nodes"]


def test_a_compute_node_without_a_local_disk_says_what_to_ask_for(cluster: Cluster, tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", **with_slurm(cluster)}
    found = rows(cluster, {"SINGFACTORY_LOGIN_NODES": "*", **job})
    assert found[WORKS]["kind"] == "compute node: this is a process of SLURM job 7"
    assert found[WORKS]["can stage"].startswith("no")
    assert "install -d -m 1777 /local/singfactory" in found[ASK]["a folder to stage"]
    missing = rows(cluster, {"SINGFACTORY_STAGE": str(tmp_path / "none"), **job})
    assert f"install -d -m 1777 {tmp_path / 'none'}" in missing[ASK]["a folder to stage"]
    there = rows(cluster, {"SLURM_TMPDIR": str(tmp_path), **job})
    assert there[WORKS]["can stage"].startswith(f"yes: {tmp_path}")
    assert "a folder to stage" not in there.get(ASK, {})


def test_no_engine_is_broken_except_on_a_login_node_whose_jobs_load_it(cluster: Cluster) -> None:
    env = {"SINGFACTORY_ENGINE": str(cluster.folder / "none"), **with_slurm(cluster)}
    found = rows(cluster, env, 9)
    assert found[WORKS]["can run"] == "no: there is no Apptainer or Singularity"
    assert "install Apptainer" in found[ASK]["an engine"]
    loaded = rows(cluster, {"SINGFACTORY_MODULES": "apptainer", **env})
    assert "in jobs, the modules of the site are loaded" in loaded[WORKS]["can run"]
    assert "an engine" not in loaded.get(ASK, {})


def test_settings_that_stop_every_command_are_broken(cluster: Cluster) -> None:
    config = cluster.folder / ".config/singfactory/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('registri = "x"\n')
    assert "registri" in rows(cluster, {}, 9)["wrong"]["settings"]


@pytest.mark.parametrize(
    ("version", "setuid", "identifiers"),
    [
        ("apptainer version 1.2.0", True, {"CVE-2023-38496", "CVE-2024-3727", "CVE-2025-65105", "CVE-2026-48785"}),
        ("apptainer version 1.4.4-1", False, {"CVE-2025-65105"}),
        ("singularity-ce version 4.4.2", True, {"known holes"}),
    ],
)
def test_known_holes_of_the_engines_version_are_named_with_the_version_to_ask_for(
    cluster: Cluster, version: str, *, setuid: bool, identifiers: set[str]
) -> None:
    found = rows(cluster, engine(cluster, version, setuid=setuid))
    assert set(found[SECURITY]) == identifiers
    newest = max((hole for hole in HOLES if hole.identifier in identifiers), key=lambda hole: hole.fixed, default=None)
    assert (f" {newest.fixed_in} " in found[ASK]["a newer engine"]) if newest else "a newer engine" not in found[ASK]


def test_every_hole_ends_with_the_version_that_fixes_it() -> None:
    for hole in HOLES:
        assert hole.kind in (APPTAINER, SINGULARITY)
        assert hole.first < hole.fixed
        for version, has in ((hole.first, True), (hole.fixed, False)):
            some = SimpleNamespace(kind=hole.kind, version=".".join(map(str, version)), is_setuid=True)
            assert (hole in known_holes(some)) is has  # type: ignore[arg-type]

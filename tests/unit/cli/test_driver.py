"""GPU images on machines with and without a driver. The driver is that of a mount namespace: there is no GPU here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factory.publish.publish import Origin, publish
from factory.sif.needs import Needs
from tests.unit.cli.cluster import Cluster
from tests.unit.parts import QUIET, candidate, report_of, sif_of, write_recipe

pytestmark = pytest.mark.slow  # each test starts several processes

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Nov 30 06:39:21 UTC 2022\n"
NEEDS = Needs("12.1", "525.60.13", "", ("sm_80", "sm_90"))
# A machine whose /dev has the devices, and whose /proc has the driver.
WITH_A_GPU = """
set -e
mount -t tmpfs none "$1/dev"
for name in null zero random urandom; do touch "$1/dev/$name"; mount --bind "/dev/$name" "$1/dev/$name"; done
touch "$1/dev/nvidiactl" "$1/dev/nvidia0"
mount --rbind "$1/dev" /dev
mount --bind "$1/driver" /proc/driver
shift
exec "$@"
"""
NAMESPACE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    recipe = write_recipe(tmp_path / "recipes", more='[run]\ngpu = "nvidia"')
    built = replace(candidate(tmp_path / "candidates", recipe, sif_of(b"image")), needs=NEEDS)
    publish(recipe, built, report_of(built), registry=made.registry, origin=Origin(), progress=QUIET)
    return made


def on_gpu(cluster: Cluster, driver: str, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Run a command on a machine with a GPU and this driver."""
    place = cluster.folder / "machine"
    (place / "driver/nvidia").mkdir(parents=True, exist_ok=True)
    (place / "dev").mkdir(exist_ok=True)
    (place / "driver/nvidia/version").write_text(VERSION.format(driver))
    if subprocess.run([*NAMESPACE, "mount", "--bind", "/proc/driver", "/proc/driver"], check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    command = [*NAMESPACE, "sh", "-c", WITH_A_GPU, "sh", str(place), sys.executable, "-m", "factory.cli", *arguments]
    done = subprocess.run(
        command, cwd=cluster.folder, env={**cluster.env, **env}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_pull_and_show_say_which_driver_an_image_needs(cluster: Cluster) -> None:
    said = "\ntool needs NVIDIA driver 525.60.13 or later (CUDA 12.1)\ntool:1.0-1: untested on GPU\n"
    assert cluster.ok("pull", "tool").err.endswith(said)
    pulled = json.loads(cluster.ok("pull", "tool", "--json").out)
    assert (pulled["cuda"], pulled["driver"]) == ("12.1", "525.60.13")
    line = "needs        NVIDIA driver 525.60.13 or later (CUDA 12.1); code for sm_80 sm_90\n"
    assert line in cluster.ok("show", "tool").out
    assert json.loads(cluster.ok("show", "tool", "--json").out)["needs"] == NEEDS.to_json()


def test_the_floor_is_remembered_in_the_store(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    assert next(iter(cluster.store.known("tool").images)).needs == NEEDS


@pytest.mark.parametrize("verb", ["exec", "run", "shell", "stage"])
def test_a_machine_with_an_older_driver_refuses_before_anything_is_copied_or_started(
    cluster: Cluster, verb: str
) -> None:
    cluster.ok("pull", "tool")
    disk = cluster.folder / "disk"
    disk.mkdir()
    program = ["true"] if verb == "exec" else []
    code, out, err = on_gpu(cluster, "470.57.02", verb, "tool", *program, SLURM_TMPDIR=str(disk))
    assert (code, out) == (9, "")
    assert "tool needs NVIDIA driver 525.60.13 or later; this machine has 470.57.02" in err
    assert list(disk.rglob("*.sif")) == []


@pytest.mark.parametrize(("driver", "option"), [("470.57.02", "--ignore-driver"), ("525.60.13", ""), ("580.65.06", "")])
def test_the_gpu_is_used_with_a_driver_that_is_new_enough_or_not_looked_at(
    cluster: Cluster, driver: str, option: str
) -> None:
    cluster.ok("pull", "tool")
    code, out, err = on_gpu(cluster, driver, "exec", *([option] if option else []), "tool", "true")
    assert (code, err) == (0, "")
    assert out.startswith("exec ")


def test_without_the_gpu_any_driver_will_do(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    assert on_gpu(cluster, "390.46", "exec", "--no-gpu", "tool", "true")[0] == 0


def test_pull_says_on_a_gpu_machine_that_its_driver_is_too_old(cluster: Cluster) -> None:
    code, _, err = on_gpu(cluster, "470.57.02", "pull", "tool")
    assert code == 0
    assert "tool needs NVIDIA driver 525.60.13 or later (CUDA 12.1); this machine has 470.57.02\n" in err


def test_a_job_without_a_gpu_runs_and_says_how_to_get_one(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    assert "this machine has none\n" in cluster.ok("exec", "tool", "true").err
    assert (
        "this machine has none; ask for one: sbatch --gpus=1\n"
        in cluster.ok("exec", "tool", "true", SLURM_JOB_ID="7").err
    )

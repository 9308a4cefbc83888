"""Manners on a login node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.cluster import FIRST, ROOT, Cluster

SHOW = """
import os, sys
from pathlib import Path
from factory.cli import settings
from factory.cli.where import be_modest
env = dict(os.environ)
be_modest(settings.load({}, env, Path("/")), env)
import ctypes
ioprio_get = {"x86_64": 252, "aarch64": 31}[os.uname().machine]
print(os.getpriority(os.PRIO_PROCESS, 0), ctypes.CDLL(None).syscall(ioprio_get, 1, 0))
"""


@pytest.mark.parametrize(
    ("env", "lowered"),
    [
        ({"SINGFACTORY_LOGIN_NODES": "*"}, True),
        ({"SINGFACTORY_LOGIN_NODES": "*.nowhere.example"}, False),
        ({}, False),
        ({"SINGFACTORY_LOGIN_NODES": "*", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}, False),
        ({"SINGFACTORY_LOGIN_NODES": "*", "SLURM_JOB_ID": "7"}, True),  # salloc's shell on the login node
    ],
)
def test_only_a_process_on_a_login_node_lets_others_go_first(env: dict[str, str], *, lowered: bool) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("SLURM", "SINGFACTORY"))}
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**kept, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    nice, io = map(int, done.stdout.split())
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == (max(before, 10) if lowered else before)
    assert (io == (2 << 13 | 7)) is lowered


def test_pull_and_verify_work_on_a_login_node(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.release(FIRST)
    cluster.ok("pull", "tool", SINGFACTORY_LOGIN_NODES="*")
    assert "1 images checked, 0 wrong" in cluster.ok("store", "verify", SINGFACTORY_LOGIN_NODES="*").out

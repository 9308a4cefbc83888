from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from factory.runners.mpi import mpi_types

OLD = "srun: MPI types are...\nsrun: none\nsrun: pmix_v3\nsrun: openmpi\n"
NEW = "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v4\n"
CONFIGURATION = "ClusterName=x\nSlurmctldHost=localhost\nNodeName=localhost\nPartitionName=p Nodes=localhost\n"


def said(folder: Path, text: str, end: str) -> dict[str, str]:
    """The environment of a machine whose srun says this."""
    (folder / "said").write_text(text)
    program = folder / "srun"
    program.write_text(f"#!/bin/sh\ncat {folder}/said {end}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("text", "end", "found"),
    [
        (OLD, ">&2", {"pmix", "openmpi"}),
        (NEW, "", {"pmix", "pmi2"}),
        ("fatal: no configuration\npmix\n", "; exit 1", set()),
        ("", "", set()),
    ],
)
def test_the_interfaces_that_srun_lists_are_read(tmp_path: Path, text: str, end: str, found: set[str]) -> None:
    assert mpi_types(said(tmp_path, text, end)) == found


def test_without_slurm_there_are_none(tmp_path: Path) -> None:
    assert mpi_types({"PATH": str(tmp_path)}) == set()


@pytest.mark.skipif(shutil.which("srun") is None, reason="this machine has no SLURM")
def test_a_real_srun_names_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(CONFIGURATION)
    assert "pmi2" in mpi_types({"PATH": os.environ["PATH"], "SLURM_CONF": str(tmp_path / "slurm.conf")})

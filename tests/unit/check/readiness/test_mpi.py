"""The files are those of Debian's packages, of Open MPI's own builds, and of Intel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.records.findings import Finding
from tests.unit.check.readiness.images import findings
from tests.unit.sif.packing import write

LIB = "usr/lib/x86_64-linux-gnu"
OPEN_MPI = f"{LIB}/libmpi.so.40.30.4"
PMIX = f"{LIB}/pmix2/lib/libpmix.so.2.6.2"


def of(tmp_path: Path, *paths: str) -> list[Finding]:
    def make(folder: Path) -> None:
        for path in paths:
            write(folder, path, b"x OpenPMIx 4.2.2rc2 (PMIx Standard" if "libpmix" in path else b"x")

    return [one for one in findings(tmp_path, make) if one.code.startswith("mpi")]


@pytest.mark.parametrize(
    ("paths", "message", "interface"),
    [
        ((OPEN_MPI, PMIX, f"{LIB}/openmpi/lib/openmpi3/mca_pmix_ext3x.so"), "Open MPI 4.1 with PMIx 4.2.2", "pmix"),
        (
            ("opt/openmpi/lib/libmpi.so.40.40.7", "opt/openmpi/lib/libpmix.so.2.9.0"),
            "Open MPI 5.0 with PMIx 4.2.2",
            "pmix",
        ),
        (("opt/ompi/lib/libmpi.so.40.20.3", "opt/ompi/lib/openmpi/mca_pmix_s2.so"), "Open MPI 4.0", "pmi2"),
        ((f"{LIB}/libmpich.so.12.2.2", f"{LIB}/libmpi.so.12"), "MPICH", "pmi2"),
        (("opt/intel/oneapi/mpi/2021.10.0/lib/libmpi.so.12.0.0",), "Intel MPI", "pmi2"),
    ],
)
def test_the_kind_of_mpi_and_its_interface_are_told(
    tmp_path: Path, paths: tuple[str, ...], message: str, interface: str
) -> None:
    (found,) = of(tmp_path, *paths)
    assert (found.code, found.severity, found.message) == ("mpi-version", "information", f"the image has {message}")
    assert f"srun --mpi={interface}," in found.remedy


def test_an_open_mpi_that_slurm_cannot_start_is_a_warning(tmp_path: Path) -> None:
    (found,) = of(tmp_path, OPEN_MPI)
    assert (found.code, found.severity, found.place) == ("mpi-without-pmi", "warning", f"/{OPEN_MPI}")


def test_an_image_without_mpi_says_nothing(tmp_path: Path) -> None:
    assert of(tmp_path, "usr/lib/libcompi.so.1", "usr/share/doc/mpi", f"{LIB}/libpmi.txt") == []

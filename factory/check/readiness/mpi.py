"""MPI: which one the image has, and how SLURM starts it on several nodes.

Ranks that SLURM starts find each other by PMI-1, PMI-2 or PMIx. The library in the image must know the one that
``srun --mpi=…`` offers (SLURM, "MPI Users Guide"; Open MPI, "Launching with Slurm").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory.check.readiness.subject import Subject
from factory.records.findings import Finding

_OPEN_MPI = re.compile(r".*/libmpi\.so\.(?P<current>12|20|40)\.(?P<age>[0-9]{1,3})\.[0-9]+", re.DOTALL)
_OPEN_MPI_VERSIONS = {
    ("40", "40"): "5.0",
    ("40", "30"): "4.1",
    ("40", "20"): "4.0",
    ("40", "10"): "3.1",
    ("40", "00"): "3.0",
}
_MPICH = re.compile(r".*/libmpich\.so\.12(?:\.[0-9]+)*", re.DOTALL)
_MPI_12 = re.compile(r".*/libmpi\.so\.12(?:\.[0-9]+)*", re.DOTALL)  # the common ABI of MPICH, Intel MPI and MVAPICH2
_INTEL = re.compile(
    r"/(?:impi|oneapi/mpi|intel[^/]*/mpi|impi_rt)[^/]*/|/etc/tmi\.conf$|/bin/impi_info$|mpiexec\.hydra\.intel"
)
_PMIX = re.compile(r".*/(?:libpmix\.so\.2(?:\.[0-9]+)*|mca_pmix_(?:ext|pmix)[0-9]x?\.so)", re.DOTALL)
_PMI2 = re.compile(r".*/(?:mca_pmix_s2\.so|libpmi2\.so\.[0-9.]+)", re.DOTALL)
_PMIX_VERSION = re.compile(rb"OpenPMIx ([0-9]+\.[0-9]+\.[0-9]+)")
_LARGEST = 16 << 20  # bytes; libpmix has 2 MB


@dataclass(frozen=True)
class Mpi:
    """An MPI library. name: with its version as far as known. interfaces: what can start it, as srun names them."""

    name: str
    path: str
    interfaces: tuple[str, ...]


def mpis(subject: Subject) -> tuple[Mpi, ...]:
    """Return the MPI libraries of an image, one of each kind. Raises FilesUnknown."""
    named = [
        path for path in subject.tree.entries if "mpi" in path.rpartition("/")[2] or "pmi" in path.rpartition("/")[2]
    ]
    found: dict[str, Mpi] = {}
    old = any("/libopen-pal.so." in path for path in subject.tree.entries)  # Open MPI 1.10 has a libmpi.so.12, too
    intel = any(_INTEL.search(path) for path in named)
    for path in named:
        if (match := _OPEN_MPI.fullmatch(path)) and match["current"] != "12":
            version = _OPEN_MPI_VERSIONS.get((match["current"], match["age"]), "")
            found.setdefault("openmpi", Mpi(f"Open MPI {version}".strip(), path, _of_open_mpi(named)))
        elif _MPICH.fullmatch(path) or (_MPI_12.fullmatch(path) and not old):
            found.setdefault("mpich", Mpi("Intel MPI" if intel else "MPICH", path, ("pmi2",)))
    return tuple(found.values())


def _versions(subject: Subject) -> Iterator[Finding]:
    for mpi in mpis(subject):
        pmix = f" with PMIx {version}" if "pmix" in mpi.interfaces and (version := _pmix_version(subject)) else ""
        if not mpi.interfaces:
            yield subject.finding("mpi-without-pmi", mpi.path, f"{mpi.name} knows neither PMIx nor PMI-2")
            continue
        remedy = f"start it with srun --mpi={mpi.interfaces[0]}, if srun --mpi=list names that"
        yield subject.finding("mpi-version", mpi.path, f"the image has {mpi.name}{pmix}", remedy=remedy)


def _of_open_mpi(named: list[str]) -> tuple[str, ...]:
    pmix = any(_PMIX.fullmatch(path) for path in named)
    pmi2 = any(_PMI2.fullmatch(path) for path in named)
    return (*(["pmix"] if pmix else []), *(["pmi2"] if pmi2 else []))


def _pmix_version(subject: Subject) -> str:
    for path, entry in subject.tree.entries.items():
        if "/libpmix.so" in path and entry.inode.kind == "file":
            match = _PMIX_VERSION.search(subject.tree.head(entry, _LARGEST))
            return match[1].decode() if match else ""
    return ""


CHECKS = (_versions,)

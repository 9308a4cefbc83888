"""What SLURM on this machine offers to MPI programs (srun(1), --mpi)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from factory.errors import NoAnswer, NotFound
from factory.io import process

_TIME_LIMIT = 10.0  # seconds; the list is that of the installed plugins, and needs no controller
_TYPE = re.compile(r"^\s*(?:srun:\s+)?([a-z][a-z0-9]*)(?:_v[0-9]+)?\s*$", re.MULTILINE | re.ASCII)


def mpi_types(env: Mapping[str, str]) -> frozenset[str]:
    """Return the interfaces that ``srun --mpi=list`` names, such as pmi2 and pmix; empty without SLURM."""
    try:
        status, out, error_output = process.output_of(["srun", "--mpi=list"], env=env, timeout=_TIME_LIMIT)
    except (NotFound, NoAnswer):
        return frozenset()
    listed = (out + b"\n" + error_output).decode(errors="replace") if status == 0 else ""
    return frozenset(_TYPE.findall(listed)) - {"none"}

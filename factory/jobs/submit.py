"""Submit a batch script to SLURM (sbatch(1))."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from factory.errors import MachineFailure, PlaceUnusable, UsageError
from factory.io import files, process
from factory.io.become import absolute_searches
from factory.runners.slurm_queue import is_unreachable, submitted

_SAYS = re.compile(r"^sbatch: (?:error: )?", re.MULTILINE)


def submit(script: str, folder: Path, name: str, env: Mapping[str, str]) -> tuple[str, Path]:
    """Submit a script; return the job ID and where the script is kept: ``NAME-ID.sh`` in the folder, next to the log.

    Raises UsageError with SLURM's own words if it refuses the job, MachineFailure if there is no SLURM here or it does
    not answer. No script is left then.
    """
    path = absolute_searches(env).get("PATH")
    if shutil.which("sbatch", path=path) is None:
        raise MachineFailure(
            "the job is not submitted: sbatch was not found",
            why="SLURM's programs are not on PATH",
            fix="run this on a login node of the cluster, or load its SLURM module",
        )
    with files.temporary_in(folder, name) as written:
        files.atomic_write(written, script, 0o755)
        status, out, error_output = process.output_of(["sbatch", "--parsable", str(written)], env=env)
        found = submitted(out.decode(errors="replace"))
        if status != 0 or found is None:
            raise _refused(error_output.decode(errors="replace") or out.decode(errors="replace"))
        number, _ = found
        final = folder / f"{name}-{number}.sh"
        files.rename_into_place(written, final)
    return number, final


def keep(script: str, path: Path, *, force: bool) -> None:
    """Write a script to a file of the user's choice. Raises PlaceUnusable if another file is there, unless forced."""
    if not force and path.exists():
        try:
            same = path.read_text(encoding="utf-8") == script
        except (OSError, ValueError):
            same = False
        if same:
            return
        raise PlaceUnusable(f"{path} exists and is another file", fix="choose another name, or replace it: --force")
    files.atomic_write(path, script, 0o755)


def _refused(text: str) -> UsageError | MachineFailure:
    said = "; ".join(filter(None, (line.strip() for line in _SAYS.sub("", text).splitlines())))
    if is_unreachable(text):
        return MachineFailure("SLURM does not answer", why=said, fix="try again; if it lasts, ask the administrator")
    return UsageError("SLURM refuses the job", why=said, fix="correct the options; sinfo lists the partitions")

"""Which kind of machine this is: a login node, a compute node, or a machine of its user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from factory.cli.settings import Settings


def job_here(env: Mapping[str, str]) -> str:
    """Return the ID of the SLURM job that runs this process on one of its nodes; ''.

    SLURM_JOB_ID alone does not tell: salloc sets it in a shell on the login node.
    """
    return env.get("SLURM_JOB_ID", "") if env.get("SLURMD_NODENAME") else ""


def on_login_node(settings: Settings, env: Mapping[str, str]) -> bool:
    """Return whether this machine's name matches `login_nodes`. Inside of a job, it is a compute node."""
    full = os.uname().nodename.lower()
    names = {full, full.partition(".")[0]}
    patterns = [pattern.lower() for pattern in settings.listed("login_nodes")]
    return not job_here(env) and any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def be_modest(settings: Settings, env: Mapping[str, str]) -> None:
    """Let other users of a login node go first, while this process hashes and writes. Not for one that becomes another.

    Children inherit the priority, and only root can raise it again.
    """
    if on_login_node(settings, env):
        from factory.io.priority import lower  # noqa: PLC0415 - `path` must start quickly

        lower()

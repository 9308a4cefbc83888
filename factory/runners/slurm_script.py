"""The batch script of builds, and sbatch's options for it. Everything in the script that varies is quoted for sh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from factory.errors import UsageError
from factory.runners.protocol import BuildRequest
from factory.runners.slurm_state import SCRIPT

_MARGIN = timedelta(minutes=10)  # for work outside the recipe's time limits: base images, hashing, readiness checks
_STEP = timedelta(minutes=30)  # limits are multiples of it, so that more builds share a job array
_SCRIPT = r"""#!/bin/sh
# Written by singfactory: builds and tests recipes, one for each member of a job array.
run={run} folder={folder} token={token}
number=${{SLURM_ARRAY_TASK_ID:-0}}

say() {{ printf '%s\n' "$*" >&2; }}

# The result appears at once. It is not written if SLURM ends the job: then the job may be started again.
finish() {{
    {{ printf '%s\n' "$1"; [ ! -s "$run/.$number.out" ] || cat "$run/.$number.out"; }} >"$run/.$number.end" &&
        mv -f "$run/.$number.end" "$run/$number.end"
    rm -f "$run/.$number.out"
    exit "$1"
}}

unseen() {{
    say "$token unseen $1"
    finish 125
}}

say "$token start ${{SLURM_RESTART_COUNT:-0}} ${{SLURMD_NODENAME:-}}"
if [ -e "$run/$number.end" ]; then # it had ended when its node failed
    exit "$(head -n 1 "$run/$number.end")"
fi
case $number in
{members}
esac
cd -- "$folder" 2>/dev/null || unseen "$folder"
command -v "$1" >/dev/null || unseen "$1"
{scratch}
child='' ended=''
trap 'ended=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
"$@" >"$run/.$number.out" &
child=$!
[ -z "$ended" ] || kill -TERM "$child" 2>/dev/null # the signal came before the line above
wait "$child"
status=$?
while [ -n "$ended" ] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
if [ -n "$ended" ]; then
    rm -f "$run/.$number.out"
    exit 143
fi
finish "$status"
"""
_ON_NODE_DISK = """\
if [ -n "${SLURM_TMPDIR:-}" ] && [ -d "${SLURM_TMPDIR:-}" ]; then
    export SINGFACTORY_TMPDIR="$SLURM_TMPDIR"
fi"""


@dataclass(frozen=True)
class JobOptions:
    """What the settings say about the jobs. at_once: members of an array that may run at the same time."""

    partition: str = ""
    account: str = ""
    options: tuple[str, ...] = ()
    at_once: int = 8
    require_gpu: bool = False
    own_scratch: bool = False  # the user chose the folder for temporary files: it beats the job's own


def minutes(request: BuildRequest) -> int:
    """Return the time limit of a build's job."""
    return -(-(request.timeout + _MARGIN) // _STEP) * (_STEP // timedelta(minutes=1))


def script(
    requests: Sequence[BuildRequest],
    *,
    program: Sequence[str],
    folder: Path,
    run: Path,
    token: str,
    options: JobOptions,
) -> str:
    """Return the script of a submission. folder: where program starts. run: the folder for logs and results."""
    members = "\n".join(
        f"{number}) set -- {' '.join(map(shlex.quote, _command(one, program, options)))} ;;"
        for number, one in enumerate(requests)
    )
    return _SCRIPT.format(
        run=shlex.quote(str(run)),
        folder=shlex.quote(str(folder)),
        token=shlex.quote(token),
        members=members,
        scratch="" if options.own_scratch else _ON_NODE_DISK,
    )


def has_members(path: Path) -> bool:
    """Return whether a submission's script is that of a job array."""
    try:
        return "\n1) set -- " in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _command(request: BuildRequest, program: Sequence[str], options: JobOptions) -> list[str]:
    return [
        *program,
        *("build", request.recipe, "--runner", "local", "--output", str(request.candidates), "--json", "--verbose"),
        "--test",
        *(["--gpu"] if options.require_gpu else []),
        *(["--force"] if request.force else []),
    ]


def sbatch(requests: Sequence[BuildRequest], *, run: Path, after: str, options: JobOptions) -> list[str]:
    """Return the command that submits builds with the same time limit. after: the job that must succeed first, or ''.

    Raises UsageError for a folder that SLURM cannot write to.
    """
    if "\\" in str(run):
        raise UsageError(
            f"SLURM cannot write the log of a build to {run}",
            why="to SLURM, a backslash in a path is an instruction",
            fix="name another folder with -o, or with work = … in factory.toml",
        )
    named = (("partition", options.partition), ("account", options.account))
    several = len(requests) > 1
    return [
        "sbatch",
        *options.options,
        *(f"--{name}={text}" for name, text in named if text),
        *([f"--array=0-{len(requests) - 1}%{options.at_once}"] if several else []),
        *([f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []),
        f"--time={minutes(requests[0])}",
        f"--job-name=singfactory-{'builds' if several else requests[0].recipe}",
        "--nodes=1",
        "--ntasks=1",
        "--chdir=/",  # the script looks whether the node sees the project
        f"--output={str(run).replace('%', '%%')}/{'%a' if several else '0'}.log",
        "--open-mode=append",
        "--requeue",
        "--export=ALL",
        "--propagate=NONE",  # a login node's resource limits must not apply to builds
        "--parsable",
        str(run / SCRIPT),
    ]

"""Batch scripts for SLURM (sbatch(1), 21.08 and later) that a person can read, change and submit by hand.

A script names its image by digest, so the job that starts next week runs the same image. It holds nothing of the
user's environment, and starting it again (requeue, `scontrol requeue`) does no harm.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from factory.errors import UsageError

PLAIN, MPI, TORCHRUN, NOTEBOOK = "plain", "mpi", "torchrun", "notebook"
JUPYTER = ("jupyter", "lab")
GPU_OPTION = "--gpus-per-node={count}"
_FIRST_PORT, _PORTS = 20000, 20000  # of notebooks and rendezvous: below the ports that Linux gives to clients
_PYTHON = re.compile(r"python(3(\.[0-9]+)?)?", re.ASCII)
_SAFE = re.compile(r"[A-Za-z0-9._:+/@%,=\[\]~-]+", re.ASCII)  # in an #SBATCH line: no blanks, quotes or comments
_FORMS = {
    "time": (
        re.compile(r"(\d+-)?\d+(:\d\d){0,2}", re.ASCII),
        "write minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS, such as 2:00:00",
    ),
    "mem": (re.compile(r"\d+[KMGTkmgt]?", re.ASCII), "write the memory of a node, such as 16G"),
    "array": (re.compile(r"\d[\d,:-]*(%\d+)?", re.ASCII), "write task numbers, such as 0-49 or 0-49%10"),
    "name": (re.compile(r"[A-Za-z0-9._+-]+", re.ASCII), "write letters, digits, dots, - and _"),
}


@dataclass(frozen=True)
class Site:
    """What the settings add to every script.

    options: for sbatch. modules: to load. setup: lines of shell. gpu_option: for sbatch, with {count}.
    """

    options: Sequence[str] = ()
    modules: Sequence[str] = ()
    setup: str = ""
    gpu_option: str = GPU_OPTION


@dataclass(frozen=True)
class Request:
    """One job.

    image: the reference with a digest. label: the same for people. command: the program and its arguments. asked: the
    sbatch options that the user asked for, by long name. cpus: of a task. gpus: of a node; gpu_note: why, if nobody
    asked. nodes, tasks: tasks of a node. pmi: for srun --mpi; pmi_note: how it is known. exec_options: for
    `singfactory exec`; common: for every command of singfactory.
    """

    image: str
    label: str
    command: Sequence[str]
    shape: str = PLAIN
    name: str = ""
    asked: Sequence[tuple[str, str]] = ()
    cpus: int = 0
    gpus: int = 0
    gpu_note: str = ""
    nodes: int = 1
    tasks: int = 1
    pmi: str = ""
    pmi_note: str = ""
    exec_options: Sequence[str] = ()
    common: Sequence[str] = ()
    ignore_driver: bool = False
    site: Site = field(default_factory=Site)

    @property
    def is_array(self) -> bool:
        """Whether it is a job array."""
        return any(name == "array" for name, _ in self.asked)

    @property
    def log(self) -> str:
        """The name of the log, with SLURM's placeholders."""
        return "%x-%A_%a.out" if self.is_array else "%x-%j.out"


def require_valid(request: Request) -> None:
    """Raise UsageError for options that contradict each other, or that an #SBATCH line cannot hold."""
    for name, text in (("name", request.name), *request.asked):
        form, fix = _FORMS.get(name, (_SAFE, "write it without blanks and quotes"))
        if form.fullmatch(text) is None:
            raise UsageError(f"--{name} {text!r} is not what SLURM understands", fix=fix)
    for option in request.site.options:
        if not option.startswith("-") or _SAFE.fullmatch(option) is None:
            raise UsageError(
                f"job_options has {option!r}, which is not an option of sbatch",
                fix='write each option with its value, such as job_options = ["--account=def-ada"]',
            )
    if request.shape == PLAIN and request.nodes * request.tasks > 1 and request.is_array:
        raise UsageError(
            "an array of jobs on several nodes", fix="leave out --array, or run each task on one node: no --nodes"
        )
    if request.shape in (TORCHRUN, NOTEBOOK) and request.is_array:
        raise UsageError(
            f"--array and --{request.shape} do not fit together",
            why="its tasks would be separate jobs",
            fix="for one job on several nodes: --nodes N" if request.shape == TORCHRUN else "leave out --array",
        )
    if request.shape == NOTEBOOK and request.nodes * request.tasks > 1:
        raise UsageError("a notebook runs on one node", fix="leave out --nodes and --tasks-per-node")
    if request.shape == TORCHRUN and request.tasks > 1:
        raise UsageError(
            "torchrun starts its processes itself", why="one for each GPU", fix="leave out --tasks-per-node"
        )
    if request.shape == TORCHRUN and request.command[0] == "torchrun":
        raise UsageError(
            "--torchrun writes torchrun's own options",
            fix="name the program only: … --torchrun -- train.py ARGUMENT",
        )


def script(request: Request) -> str:
    """Return the batch script. Raises UsageError."""
    require_valid(request)
    body = {PLAIN: _plain, MPI: _mpi, TORCHRUN: _torchrun, NOTEBOOK: _notebook}[request.shape](request)
    lines = ["#!/bin/bash", *_options(request), "set -euo pipefail", "", *_image(request), *_setup(request), "", *body]
    return "\n".join(lines) + "\n"


def _options(request: Request) -> Iterator[str]:
    """The #SBATCH lines: the site's, then the user's, which replace the site's of the same name."""
    given = [("job-name", request.name), *request.asked]
    notes = {}
    if request.nodes > 1 or request.tasks > 1:
        given += [("nodes", str(request.nodes)), ("ntasks-per-node", str(request.tasks))]
    if request.cpus:
        given.append(("cpus-per-task", str(request.cpus)))
    gpu_options = request.site.gpu_option.format(count=request.gpus).split() if request.gpus else []
    ours = {name for name, _ in given}
    for option in (*request.site.options, *gpu_options):
        name, _, value = option.lstrip("-").partition("=")
        if name not in ours:
            given.append((name, value))
            if option in gpu_options and request.gpu_note:
                notes[name] = request.gpu_note
    given += [("output", request.log), ("open-mode", "append")]
    notes["open-mode"] = "a job that is requeued adds to its log"
    for name, value in given:
        option = f"#SBATCH --{name}" + (f"={value}" if value else "")
        yield f"{option:31} # {notes[name]}" if name in notes else option


def _image(request: Request) -> Iterator[str]:
    yield f"# {request.label}, by digest: the job runs this image, whatever the tag means by then."
    yield f"image={shlex.quote(request.image)}"


def _setup(request: Request) -> Iterator[str]:
    if request.site.modules:
        yield f"module load {shlex.join(request.site.modules)}"
    yield from request.site.setup.strip().splitlines()


def _step(request: Request, *options: str) -> str:
    """`srun` and its options. Since 22.05 it does not take the CPUs of a task from sbatch."""
    cpus = ['--cpus-per-task="$SLURM_CPUS_PER_TASK"'] if request.cpus else []
    return _words("srun", *options, *cpus)


def _exec(request: Request, command: str) -> str:
    return _words(
        "singfactory exec", *map(shlex.quote, (*request.common, *request.exec_options)), '"$image"', "--", command
    )


def _stage(request: Request) -> Iterator[str]:
    """One process a node copies the image before the tasks start."""
    options = [*request.common, *(["--ignore-driver"] if request.ignore_driver else [])]
    yield "# One process on each node copies the image to the node's disk. The tasks find it there."
    yield _words(
        'srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 singfactory stage',
        *map(shlex.quote, options),
        '"$image" >/dev/null',
    )


def _words(*words: str) -> str:
    return " ".join(words)


def _plain(request: Request) -> Iterator[str]:
    if request.is_array:
        yield "# Every task of the array runs this, with its number in SLURM_ARRAY_TASK_ID."
    if request.nodes * request.tasks > 1:
        yield from _stage(request)
    yield f"{_step(request)} {_exec(request, shlex.join(request.command))}"


def _mpi(request: Request) -> Iterator[str]:
    yield from _stage(request)
    yield f"# One MPI rank for each task. {request.pmi_note}"
    yield f"{_step(request, f'--mpi={request.pmi}')} {_exec(request, shlex.join(request.command))}"


def _torchrun(request: Request) -> Iterator[str]:
    command = list(request.command)
    if _PYTHON.fullmatch(command[0]) and len(command) > 1:  # torchrun starts Python itself
        command = command[1:]
    if request.nodes > 1:
        yield from _stage(request)
    yield "# One torchrun on each node; they meet at the first node of the job."
    yield 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)'
    yield f"port=$(({_FIRST_PORT} + SLURM_JOB_ID % {_PORTS}))"
    yield f"{_step(request, '--ntasks-per-node=1')} " + _exec(request, "torchrun \\")
    yield f'    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node={request.gpus or 1} --rdzv-backend=c10d \\'
    yield '    --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint="$head:$port" \\'
    yield f"    {shlex.join(command)}"


def _notebook(request: Request) -> Iterator[str]:
    yield "# Only you can read this file: it has the address and the password (token) of the notebook."
    yield 'address="$SLURM_JOB_NAME-$SLURM_JOB_ID.address"'
    yield f"port=$(({_FIRST_PORT} + SLURM_JOB_ID % {_PORTS}))"
    yield "JUPYTER_TOKEN=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \\n')"
    yield "export JUPYTER_TOKEN"
    yield "trap 'rm -f \"$address\"' EXIT"
    yield '(umask 077 && cat >"$address") <<END'
    yield "On your own computer:  ssh -N -L $port:$(hostname):$port $(id -un)@$SLURM_SUBMIT_HOST"
    yield "Then open:             http://localhost:$port/lab?token=$JUPYTER_TOKEN"
    yield "END"
    yield f"{_step(request)} {_exec(request, shlex.join(request.command))} \\"
    yield '    --no-browser --ip=0.0.0.0 --port="$port" --ServerApp.port_retries=0'

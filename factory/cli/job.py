"""`singfactory job`: a batch script for SLURM, printed or submitted."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factory.cli import run_options
from factory.cli.context import Context, common_arguments
from factory.cli.execute import _Command
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.cli.where import be_modest
from factory.errors import FactoryError, MachineFailure, UsageError
from factory.jobs import script as scripts
from factory.jobs.script import MPI, NOTEBOOK, PLAIN, TORCHRUN, Request, Site
from factory.jobs.submit import keep, submit
from factory.oci.names import Reference, RegistryAddress
from factory.store.leases import Job
from factory.store.refs import StoredImage

_PMIS = ("pmix", "pmi2")
_MOST = 100_000  # nodes, tasks, CPUs or GPUs


@dataclass(frozen=True)
class JobOptions(CommonOptions):
    """Options of `singfactory job`."""

    ref: str
    array: str | None
    nodes: int
    tasks_per_node: int
    mpi: bool
    pmi: str | None
    torchrun: bool
    notebook: bool
    gpus: int
    no_gpu: bool
    cpus: int
    mem: str | None
    time: str | None
    partition: str | None
    account: str | None
    name: str | None
    presets: Sequence[str]
    bind: Sequence[str]
    output: Path | None
    force: bool
    submit: bool
    no_pull: bool
    arguments: Sequence[str] = ()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX; the script names the digest")
    parser.add_argument(
        "arguments",
        metavar="PROGRAM ...",
        nargs=argparse.REMAINDER,
        action=_Command,
        help="the program in the image and its arguments, exactly as typed",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--mpi", action="store_true", help="each task is a rank of an MPI program")
    shape.add_argument("--torchrun", action="store_true", help="PROGRAM is a Python script for torchrun on all nodes")
    shape.add_argument("--notebook", action="store_true", help="start Jupyter; PROGRAM is jupyter lab by default")
    parser.add_argument("--array", metavar="TASKS", help="a job array, such as 0-49, or 0-49%%10 for ten at a time")
    parser.add_argument("--nodes", type=_count, default=1, metavar="N", help="number of nodes (default 1)")
    parser.add_argument("--tasks-per-node", type=_count, default=1, metavar="N", help="tasks on each node (default 1)")
    parser.add_argument("--pmi", choices=_PMIS, help="for --mpi: how srun starts ranks (default: as the image needs)")
    parser.add_argument("--gpus", type=_count, default=0, metavar="N", help="GPUs on each node (default: as REF needs)")
    parser.add_argument("--no-gpu", action="store_true", help="run without a GPU even if the image is made for one")
    parser.add_argument("--cpus", type=_count, default=0, metavar="N", help="CPUs of each task")
    parser.add_argument("--mem", metavar="SIZE", help="memory of each node, such as 16G")
    parser.add_argument("--time", metavar="TIME", help="time limit, such as 2:00:00 or 1-12")
    parser.add_argument("--partition", metavar="NAME", help="the partition of the job")
    parser.add_argument("--account", metavar="NAME", help="the account of the job")
    parser.add_argument("--name", metavar="NAME", help="name of the job and its log (default: the image's)")
    parser.add_argument(
        "--with", dest="presets", action="append", default=[], metavar="NAME", help="bind presets, as for exec"
    )
    parser.add_argument("-B", "--bind", action="append", default=[], metavar="SRC[:DEST]", help="bind, as for exec")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the script to FILE instead of printing it")
    parser.add_argument("--force", action="store_true", help="with --output: replace another file")
    parser.add_argument("--submit", action="store_true", help="submit the job; the script is kept next to its log")
    parser.add_argument("--no-pull", action="store_true", help="do not pull the image first")
    common_arguments(parser, JobOptions, registry=True, store=True, json=True)


def run(options: JobOptions) -> int:
    """Print, write or submit the script. Raises UsageError, NotFound, MachineFailure."""
    context = Context(options)
    if not options.submit:  # some sites give jobs the priority of the process that submits them
        be_modest(context.settings, context.env)
    request = _request(context, options)
    scripts.require_valid(request)  # before an image is pulled
    image, digest = _image(context, options)
    request = _for_image(context, request, options, image, digest)
    text = scripts.script(request)
    if options.output is not None:
        keep(text, options.output.absolute(), force=options.force)
    if options.submit:
        return _submit(context, options, request, text, image)
    if options.output is None or options.json:
        _show(options, request, text)
    else:
        context.progress.note(f"to submit it: sbatch {options.output}")
    return 0


def _show(options: JobOptions, request: Request, text: str) -> None:
    """Print the script, which holds the user's own words: no byte is changed."""
    if options.json:
        emit({"script": text, "image": request.image, "job": None})
    else:
        print(text, end="", flush=True)


def _request(context: Context, options: JobOptions) -> Request:
    """The job as far as it is known without the image."""
    settings = context.settings
    shape = MPI if options.mpi else TORCHRUN if options.torchrun else NOTEBOOK if options.notebook else PLAIN
    command = list(options.arguments) or (list(scripts.JUPYTER) if options.notebook else [])
    if not command:
        raise UsageError("job needs a program", fix=f"singfactory job {options.ref} -- python train.py")
    if options.pmi and not options.mpi:
        raise UsageError("--pmi is for programs that use MPI", fix="add --mpi")
    if options.gpus and options.no_gpu:
        raise UsageError("--gpus and --no-gpu contradict each other", fix="leave out one of them")
    asked = (
        ("array", options.array),
        ("time", options.time),
        ("mem", options.mem),
        ("partition", options.partition),
        ("account", options.account),
    )
    named = (("--registry", options.registry), ("--store", options.store))
    return Request(
        image="",
        label="",
        command=command,
        shape=shape,
        name=options.name or context.reference(options.ref).name,
        asked=[(name, text) for name, text in asked if text is not None],
        cpus=options.cpus,
        gpus=options.gpus,
        nodes=options.nodes,
        tasks=options.tasks_per_node,
        common=[word for name, text in named if text for word in (name, context.settings.text(name.strip("-")))],
        exec_options=[
            *(["--no-gpu"] if options.no_gpu else []),
            *(word for name in _presets(context, options) for word in ("--with", name)),
            *(word for bind in options.bind for word in ("--bind", bind)),
        ],
        ignore_driver=options.no_gpu,
        site=Site(
            settings.listed("job_options"),
            settings.listed("modules"),
            settings.text("job_setup"),
            _gpu_option(context),
        ),
    )


def _presets(context: Context, options: JobOptions) -> list[str]:
    """Return the presets of --with, which must be known here; their folders may exist on the nodes only."""
    names = run_options.preset_names(options.presets)
    for name in names:
        run_options.preset(context, name)
    return names


def _gpu_option(context: Context) -> str:
    text = context.settings.text("job_gpus", scripts.GPU_OPTION)
    if not re.fullmatch(r"(--[a-z-]+=[A-Za-z0-9_.,:{}=-]+ ?)+", text, re.ASCII) or "{count}" not in text:
        raise UsageError(
            f"job_gpus is {text!r}",
            why=f"set in {context.settings.values['job_gpus'].origin}",
            fix='write options of sbatch with {count} for the number of GPUs, such as "--gres=gpu:{count}"',
        )
    try:
        text.format(count=1)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"job_gpus is {text!r}", why="it may have {count} only", fix="fix that line") from error
    return text


def _image(context: Context, options: JobOptions) -> tuple[StoredImage, Reference]:
    """Pull the image, or only look it up; return it and the reference with its digest for the script."""
    from factory.pull.pull import pull  # noqa: PLC0415 - scripts with wrong options need no network

    reference = context.qualified(context.reference(options.ref))
    if options.no_pull or (reference.registry is None and context.configured is None):
        image = context.store.find(reference)
    else:
        image = pull(
            reference,
            registry=context.registry_of(reference),
            store=context.store,
            arch=context.arch,
            progress=context.progress,
        ).image
    same = Reference(image.recipe, digest=image.digest)
    if image.registry and not context.store.is_unqualified(image):
        same = same.at(RegistryAddress.parse(image.registry))
    return image, same


def _for_image(context: Context, request: Request, options: JobOptions, image: StoredImage, same: Reference) -> Request:
    gpus, note = options.gpus, ""
    if image.gpu in ("nvidia", "rocm") and not gpus and not options.no_gpu:
        gpus, note = 1, f"the image is made for GPUs ({image.gpu}); without one: --no-gpu"
    pmi, pmi_note = _pmi(context, options, image) if options.mpi else ("", "")
    label = f"{image.recipe}:{image.tag}"
    return replace(request, image=str(same), label=label, gpus=gpus, gpu_note=note, pmi=pmi, pmi_note=pmi_note)


def _pmi(context: Context, options: JobOptions, image: StoredImage) -> tuple[str, str]:
    """How srun starts the image's MPI, and how that is known."""
    from factory.runners.mpi import mpi_types  # noqa: PLC0415

    found, note = (options.pmi, "") if options.pmi else _found_by_checks(context, image)
    offered = mpi_types(context.env)
    if offered and found not in offered:
        context.progress.note(
            f"this cluster's srun has no --mpi={found} (srun --mpi=list: {', '.join(sorted(offered))}); "
            "each rank would think that it is alone"
        )
    return found, note


def _found_by_checks(context: Context, image: StoredImage) -> tuple[str, str]:
    from factory.pull.resolve import resolve  # noqa: PLC0415
    from factory.records import report as reports  # noqa: PLC0415

    try:
        registry = context.open_registry(RegistryAddress.parse(image.registry)) if image.registry else context.registry
        release = resolve(Reference(image.recipe, digest=image.digest), registry, context.arch).release
        found = reports.of_release(release, registry)
    except FactoryError:
        found = ()
    for finding in found[0].findings if found else ():
        match = re.search(r"--mpi=(pmix|pmi2)", finding.remedy)
        if finding.code == "mpi-version" and match:
            return match[1], f"{finding.message[:1].upper()}{finding.message[1:]}."
    return _PMIS[0], "It is not known which MPI the image has: change --mpi if ranks think that they are alone."


def _submit(context: Context, options: JobOptions, request: Request, text: str, image: StoredImage) -> int:
    folder = Path.cwd()
    try:
        number, kept = submit(text, folder, request.name, context.env)
    except MachineFailure:
        _show(options, request, text)
        raise
    context.store.lease(image.sif_digest, Job.parse(number, ""), process=False)  # until the job has ended
    log = str(folder / request.log.replace("%x", request.name).replace("%j", number).replace("%A", number))
    log = log.replace("%a", "*")
    if options.json:
        emit({"script": text, "image": request.image, "job": number, "log": log, "path": str(kept)})
        return 0
    say(f"submitted job {number}: {request.label} ({image.digest})")
    say(f"  log     {log}")
    say(f"  script  {kept}")
    if request.shape == NOTEBOOK:
        say(f"  address {folder / f'{request.name}-{number}.address'} (from when the job runs)")
    say(f"  state   squeue --jobs={number}")
    say(f"  cancel  scancel {number}")
    return 0


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to {_MOST}")
    return int(text)

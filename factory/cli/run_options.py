"""The engine's options for a run, and where each comes from: recipe, site, user, command line, this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from factory.cli import binds
from factory.cli.binds import Wanted
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.settings import Value
from factory.engine.container import Start
from factory.engine.machine import Rights, architecture, gpu_present
from factory.engine.program import Program
from factory.errors import MachineFailure, UsageError
from factory.store.refs import StoredImage

GPU_OPTIONS = {"nvidia": "--nv", "rocm": "--rocm"}
IGNORE_DRIVER = "--ignore-driver"
_NAMES = {"nvidia": "NVIDIA", "rocm": "AMD"}
# The variables in which SLURM says that it has given this job GPUs, and what they say if it has not.
_GIVEN_GPUS = {"SLURM_JOB_GPUS": "", "SLURM_STEP_GPUS": "", "SLURM_GPUS_ON_NODE": "0", "SLURM_GPUS": "0"}
_RUNS_ALSO = {"amd64": ("386",), "arm64": ("arm",)}
_EMULATORS = Path("/proc/sys/fs/binfmt_misc")
_EMULATED = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}
_FORMAT = "01"  # the version of SIF that engines read
# Options that are passed on as they are: attribute, and whether it has a value.
_PASSED = (
    ("contain", False),
    ("containall", False),
    ("writable_tmpfs", False),
    ("overlay", True),
    ("env_text", True),
    ("pwd", True),
)


@dataclass(frozen=True)
class RunOptions(CommonOptions):
    """Options of `singfactory exec`, `run` and `shell`. arguments: everything after REF. presets: of --with."""

    ref: str
    bind: Sequence[str]
    presets: Sequence[str]
    engine_option: Sequence[str]
    no_gpu: bool
    nv: bool
    rocm: bool
    cleanenv: bool
    contain: bool
    containall: bool
    writable_tmpfs: bool
    overlay: Sequence[str]
    env_text: Sequence[str]
    pwd: str | None
    home: str | None
    no_home: bool
    ignore_driver: bool
    record: Path | None
    explain: bool
    arguments: Sequence[str] = ()


class Part(NamedTuple):
    """Words of the command that starts the engine. origin: where they come from."""

    words: tuple[str, ...]
    origin: str


class Run(NamedTuple):
    """A run that is ready to start.

    file: of the image. stays: why it is not on the node's own disk, or ''. record: the file that notes it, if any.
    """

    verb: str
    arguments: Sequence[str]
    image: StoredImage
    file: Path
    stays: str
    engine: Program
    rights: Rights
    parts: Sequence[Part]
    start: Start
    record: Path | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options that decide how an image is run."""
    add = parser.add_argument
    many = {"action": "append", "default": []}
    add("-B", "--bind", metavar="SRC[:DEST]", help="bind a path, as in apptainer exec", **many)  # type: ignore[arg-type]
    text = "bind the site's or your presets of these names (setting binds)"
    add("--with", dest="presets", metavar="NAME[,NAME]", help=text, **many)  # type: ignore[arg-type]
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument("--no-gpu", action="store_true", help="run without a GPU even if the recipe asks for one")
    gpu.add_argument("--nv", action="store_true", help="run with NVIDIA GPUs; an error if this machine has none")
    gpu.add_argument("--rocm", action="store_true", help="run with AMD GPUs; an error if this machine has none")
    add(IGNORE_DRIVER, action="store_true", help="go on even if the image needs a newer NVIDIA driver")
    add("-e", "--cleanenv", action="store_true", help="do not pass on the environment (setting cleanenv)")
    add("--env", dest="env_text", metavar="NAME=VALUE", help="set a variable in the image", **many)  # type: ignore[arg-type]
    add("--pwd", metavar="DIR", help="the working folder in the image")
    add("-c", "--contain", action="store_true", help="use an empty /dev, /tmp and home instead of this machine's")
    add("-C", "--containall", action="store_true", help="the same, with processes and environment apart, too")
    add("--writable-tmpfs", action="store_true", help="let the image's files be changed, in memory")
    add("--overlay", metavar="PATH", help="a file system over the image's", **many)  # type: ignore[arg-type]
    home = parser.add_mutually_exclusive_group()
    home.add_argument("-H", "--home", metavar="DIR[:INSIDE]", help="another folder as the home (setting home)")
    home.add_argument("--no-home", action="store_true", help="do not mount the home")
    text = "another option of the engine, as --opt=value"
    add("--engine-option", metavar="OPTION", help=text, **many)  # type: ignore[arg-type]
    add("--record", type=Path, metavar="FILE", help="append image and command to FILE, as JSON (setting record)")
    add("--explain", action="store_true", help="print the command, and where each part comes from; start nothing")
    common_arguments(parser, RunOptions, registry=True, store=True, json=True)


def require_fit(image: StoredImage, file: Path) -> None:
    """Raise MachineFailure if the programs in a SIF are for another architecture, or its format for another engine."""
    from factory.sif.architecture import kind_of  # noqa: PLC0415

    kind, here = kind_of(file), architecture()
    if kind is None:  # the engine knows other kinds of images, too
        return
    if kind.version != _FORMAT:
        raise MachineFailure(
            f"{image.recipe}:{image.tag} is a SIF of version {kind.version!a}",
            why=f"engines read version {_FORMAT}",
            fix="use a newer Apptainer, or another build of the image: singfactory show " + image.recipe,
        )
    if kind.arch in (here, "unknown", *_RUNS_ALSO.get(here, ())):
        return
    if (_EMULATORS / f"qemu-{_EMULATED.get(kind.arch, kind.arch)}").exists():
        return
    raise MachineFailure(
        f"{image.recipe}:{image.tag} is an image for {kind.arch}, and this machine is {here}",
        why="its programs cannot run here",
        fix=f"run it on a machine with {kind.arch}, or look for a build for {here}: singfactory show {image.recipe}",
    )


def collect(context: Context, image: StoredImage, options: RunOptions) -> list[Part]:
    """Return the options, in the order in which the engine gets them.

    Raises UsageError, NotFound for a preset that cannot be bound, and MachineFailure for a GPU that is not there.
    """
    return [
        *_gpu(context, image, options),
        *_clean(context, options),
        *_home(context, options),
        *_binds(context, image, options),
        *_passed(options),
        *(
            Part((word,), f"engine_options, {context.settings.origin('engine_options')}")
            for word in context.settings.listed("engine_options")
        ),
        *(Part((word,), "option --engine-option") for word in options.engine_option),
    ]


def _gpu(context: Context, image: StoredImage, options: RunOptions) -> Iterator[Part]:
    asked = "nvidia" if options.nv else "rocm" if options.rocm else ""
    wanted = asked or ("" if options.no_gpu else image.gpu)
    if wanted not in GPU_OPTIONS:
        return
    if gpu_present() != wanted:
        _without_gpu(context, image, wanted, asked=bool(asked))
        return
    origin = f"option {GPU_OPTIONS[wanted]}" if asked else f"the recipe: gpu = {wanted!r}, and this machine has one"
    if wanted == "nvidia":
        from factory.engine import driver  # noqa: PLC0415

        found = driver.nvidia_driver()
        if not options.ignore_driver:
            otherwise = f"run it without the GPU (--no-gpu), or try it: {IGNORE_DRIVER}"
            driver.require_driver(image.recipe, image.needs, found, otherwise)
        origin += f" (driver {found})" if found else ""
    yield Part((GPU_OPTIONS[wanted],), origin)


def _without_gpu(context: Context, image: StoredImage, wanted: str, *, asked: bool) -> None:
    """Say that there is no GPU. An error if the user or the job has asked for one: then the run is no use without."""
    given = next((name for name, none in _GIVEN_GPUS.items() if context.env.get(name, "") not in ("", none)), "")
    given = given if context.job.number else ""
    name = _NAMES[wanted]
    if given:
        raise MachineFailure(
            f"{image.recipe} asks for a GPU ({wanted}), and this machine has no {name} driver with a device",
            why=f"SLURM has given this job GPUs ({given}={context.env[given]}), so {os.uname().nodename} is broken",
            fix=f"use another node (sbatch --exclude={os.uname().nodename}) and tell an administrator, or add --no-gpu",
        )
    if asked:
        raise MachineFailure(
            f"{GPU_OPTIONS[wanted]}: this machine has no {name} driver with a device",
            why="the job has not asked for a GPU" if context.job.number else "",
            fix="ask for one (sbatch --gpus=1, srun --gpus=1), or run without a GPU: --no-gpu",
        )
    how = "; ask for one: sbatch --gpus=1" if context.job.number else ""
    context.progress.note(f"{image.recipe} asks for a GPU ({wanted}), but this machine has none{how}")


def _clean(context: Context, options: RunOptions) -> Iterator[Part]:
    if options.cleanenv:
        yield Part(("--cleanenv",), "option --cleanenv")
    elif context.settings.switch("cleanenv"):
        yield Part(("--cleanenv",), f"cleanenv, {context.settings.origin('cleanenv')}")


def _home(context: Context, options: RunOptions) -> Iterator[Part]:
    if options.no_home:
        yield Part(("--no-home",), "option --no-home")
    elif options.home:
        yield Part(("--home", options.home), "option --home")
    elif (text := context.settings.text("home", "host")) == "none":
        yield Part(("--no-home",), f"home, {context.settings.origin('home')}")
    elif text != "host":
        origin = context.settings.origin("home")
        home = binds.filled(text, context.env, f"(home, {origin})")
        if not home.startswith("/"):
            fix = "write host, none, FOLDER or FOLDER:INSIDE, with full paths"
            raise UsageError(f"home is {text!r}", why=f"set {origin}", fix=fix)
        binds.require_source(Wanted(home.partition(":")[0], home.partition(":")[2] or home), f"home ({origin})")
        yield Part(("--home", home), f"home, {origin}")


def _binds(context: Context, image: StoredImage, options: RunOptions) -> Iterator[Part]:
    """Yield the binds: those of every run, those of presets, those of the command line. The last of a target counts."""
    own = [(Part(("--bind", text), "option --bind"), text.partition(":")[2].partition(":")[0]) for text in options.bind]
    chosen = [one for name in preset_names(options.presets) for one in preset_binds(context, image, name)]
    taken = [target or part.words[1] for part, target in own]
    kept = [(bind, origin) for bind, origin in chosen if bind.target not in taken]
    taken += [bind.target for bind, _ in kept]
    for bind in _always(context):
        if bind.target not in taken:
            yield Part(("--bind", str(bind)), f"bind, {context.settings.origin(binds.ALWAYS)}")
    yield from (Part(("--bind", str(bind)), origin) for bind, origin in kept)
    yield from (part for part, _ in own)


def preset_names(presets: Sequence[str]) -> list[str]:
    """Return the names of presets in the texts of ``--with``, each once."""
    return list(dict.fromkeys(name.strip() for text in presets for name in text.split(",") if name.strip()))


def preset(context: Context, name: str) -> Value:
    """Return the setting of a preset. Raises UsageError if nobody has defined it."""
    found = context.settings.values.get(binds.setting(name))
    if found is None:
        prefix = binds.setting("")
        known = sorted(one.removeprefix(prefix) for one in context.settings.values if one.startswith(prefix))
        raise binds.unknown(name, known, "~/.config/singfactory/config.toml")
    return found


def preset_binds(context: Context, image: StoredImage, name: str) -> Iterator[tuple[Wanted, str]]:
    """Yield the binds of a preset, and where each comes from. Raises UsageError, and NotFound for a missing folder."""
    found = preset(context, name)
    origin = f"preset {name}, from {found.origin}"
    for bind in binds.read(found.text, context.env, f"({origin})", image.binds, name):
        binds.require_source(bind, f"the {origin},")
        yield bind, origin


def _always(context: Context) -> Iterator[Wanted]:
    """Yield the binds of every run. What is missing on this machine is left out: a run may not need it."""
    for text in filter(None, context.settings.text(binds.ALWAYS).split(",")):
        bind, missing = _found(text, context)
        if bind is not None:
            yield bind
        else:
            context.progress.note(f"{text} is not bound: {missing} (setting bind)")


def _found(text: str, context: Context) -> tuple[Wanted | None, str]:
    """Return the bind, or None and why there is none."""
    try:
        (bind,) = binds.read(text, context.env, f"(bind, {context.settings.origin(binds.ALWAYS)})")
    except UsageError as error:
        return None, error.what
    return (bind, "") if os.path.exists(bind.source) else (None, "it does not exist here")  # noqa: PTH110


def _passed(options: RunOptions) -> Iterator[Part]:
    """Yield what is passed on as it is."""
    for name, has_value in _PASSED:
        option = f"--{name.removesuffix('_text').replace('_', '-')}"
        given = getattr(options, name)
        if has_value:
            values = [given] if isinstance(given, str) else given or ()
            yield from (Part((option, value), f"option {option}") for value in values)
        elif given:
            yield Part((option,), f"option {option}")

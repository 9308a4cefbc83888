"""`singfactory new --dockerfile`: a recipe that builds a Dockerfile which somebody has."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import UsageError
from factory.io.files import readable_size
from factory.io.plain import NotPlainError, read_plain
from factory.oci.names import docker_reference, version_name
from factory.recipes.dockerfile import ignore, parser
from factory.recipes.dockerfile.context import FILE, LINK, Context
from factory.recipes.dockerfile.model import Instruction
from factory.recipes.dockerfile.refused import refuse
from factory.recipes.dockerfile.steps import Target
from factory.recipes.languages import LANGUAGES, of_image

NAME = "Dockerfile"
_LARGEST = 100_000_000  # bytes of all files: a git repository holds them
_VERSION = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)", re.ASCII)
_FILE = re.compile(r"[\w./-]+\.[A-Za-z]\w{0,5}", re.ASCII)
_GPU = re.compile(r"cuda|nvidia|NVIDIA_|CUDA_")
_RECIPE = """\
# How this image is built, tested and run. Check this file with: singfactory lint {name}

[recipe]
name = "{name}"
version = "{version}"  # of the software in the image; the factory appends a build number
summary = {summary}
license = "NOASSERTION"  # of the software in the image: an SPDX identifier such as MIT or BSD-3-Clause
maintainers = ["@your-name"]

[build]
dockerfile = "Dockerfile"  # singfactory update pins its images in base.lock
{build}arch = ["amd64"]
# disk = "10GB"  # free disk space that the build needs
# timeout = "2h"

[run]  # options of singfactory exec on the cluster
gpu = "{gpu}"  # none, nvidia or rocm
# binds = ["/dataset", "/final_log"]  # empty folders to create in the image as mount points
{env}
{tests}
[rebuild]
when = ["base-changed", "inputs-changed"]
# max_age = "30d"
"""
_TEST = """\
[[test]]
name = "{name}"
run = {run}
stdout = "ok"  # or stdout_regex; exit = 0; timeout = "2m"; gpu = true
"""
_GPU_TEST = """\
[[test]]
name = "sees the GPU"
run = "nvidia-smi -L"
stdout = "GPU 0"
gpu = true
"""


@dataclass(frozen=True)
class Found:
    """A Dockerfile and what it reads. content: the recipe's files by path. executable: paths of programs.

    left_out: what a recipe cannot hold, for a notice.
    """

    content: Mapping[str, str | bytes]
    executable: frozenset[str]
    links: Mapping[str, str]
    left_out: tuple[str, ...]


def read(place: Path, context: Path, name: str, *, target: str, args: Mapping[str, str]) -> Found:
    """Read a Dockerfile and the files that it copies. place: the Dockerfile. context: the folder that COPY reads.

    Raises ProblemError, with file and line, for what is not built, and UsageError if the files are too large.
    """
    dockerfile = parser.read(place.parent, place.name)
    inside = place.name if place.parent.resolve() == context.resolve() else NAME
    folder = Context(context, inside, place)
    refuse(dockerfile, args, target, "amd64", folder)
    wanted = Target(dockerfile, args, target, "amd64")
    content: dict[str, str | bytes] = {}
    executable, links, left_out, size = set(), {}, set(), 0
    for entry in folder.entries(wanted.sources()):
        top = entry.path.split("/")
        if ".git" in top:
            left_out.add("/".join(top[: top.index(".git") + 1]))
        elif entry.kind == LINK:
            links[entry.path] = entry.target
        elif entry.kind == FILE:
            size += (context / entry.path).stat().st_size
            if size > _LARGEST:
                raise _too_large(entry.path, place)
            content[entry.path] = _content(context / entry.path)
            executable |= {entry.path} if entry.executable else set()
    content[NAME] = _content(place)
    for file in (context / f"{inside}{ignore.FILE}", context / ignore.FILE):
        if file.is_file():
            content[ignore.FILE] = _content(file)
            break
    content["recipe.toml"] = _toml(name, wanted, target, args)
    return Found(content, frozenset(executable), links, tuple(sorted(left_out)))


def _too_large(path: str, place: Path) -> UsageError:
    return UsageError(
        f"the files that {place} copies are larger than {readable_size(_LARGEST)}",
        why=f"with {path}; a recipe is a folder of a git repository",
        fix="hide data in .dockerignore and bind it when the image runs, or download it with RUN curl",
    )


def _content(path: Path) -> bytes:
    try:
        return read_plain(path, _LARGEST)
    except (NotPlainError, OSError) as error:
        raise UsageError(f"{path} cannot be read", why=str(error)) from error


def _toml(name: str, target: Target, stage: str, args: Mapping[str, str]) -> str:
    images = list(_images(target))
    final = images[-1] if images else ""
    build = f"target = {json.dumps(stage)}\n" if stage else ""
    if args:
        build += "args = { " + ", ".join(f"{key} = {json.dumps(text)}" for key, text in args.items()) + " }\n"
    instructions = [found for one in target.stages for found in one.instructions]
    own = {pair.name for found in instructions if found.name == "ENV" for pair in found.pairs}
    wanted = (variable for language in _languages(target, images) for variable in language.items())
    variables = {key: text for key, text in wanted if key not in own}
    env = ""
    if variables:
        env = "# Keep users' own packages out: those in their home folders, and those in variables of the cluster.\n"
        env += "env = { " + ", ".join(f"{key} = {json.dumps(text)}" for key, text in variables.items()) + " }\n"
    text = "\n".join(found.text for one in target.dockerfile.stages for found in one.instructions)
    gpu = "nvidia" if any(_GPU.search(image) for image in images) or _GPU.search(text) else "none"
    return _RECIPE.format(
        name=name,
        version=_version(final),
        summary=json.dumps(f"{name}, from a Dockerfile on {final or 'scratch'}"),
        build=build,
        gpu=gpu,
        env=env,
        tests=_test(target) + ("\n" + _GPU_TEST if gpu != "none" else ""),
    )


def _images(target: Target) -> Iterator[str]:
    for stage in target.stages:
        if image := target.graph.origin(stage).image:
            yield image


def _version(image: str) -> str:
    _, _, tag = docker_reference(image) if image else ("", "", "")
    match = None if ":" in tag else _VERSION.match(tag)
    return version_name(match[1]) if match else "1.0"


def _languages(target: Target, images: Sequence[str]) -> Iterator[Mapping[str, str]]:
    words = {word.strip("\"'") for step in target.steps() for word in step.instruction.text.split()}
    for language in LANGUAGES:
        named = any(language in of_image(image) for image in images)
        if named or any(language.words.fullmatch(word) for word in words):
            yield language.variables


def _test(target: Target) -> str:
    """Return a test that finds the program and the files that ENTRYPOINT and CMD name, in WORKDIR."""
    words, folder = _started(target)
    checks = []
    program = words[0] if words else ""
    if program and "$" not in program:
        checks.append(f"command -v {shlex.quote(program)} >/dev/null")
    checks += [f"test -r {shlex.quote(word)}" for word in words[1:] if _FILE.fullmatch(word) and word[0] != "-"]
    if folder != "/" and "$" not in folder:
        checks.insert(0, f"cd {shlex.quote(folder)}")
    if not checks:
        checks = ["true"]
    return _TEST.format(name="starts", run=json.dumps(" && ".join([*checks, "echo ok"]), ensure_ascii=False))


def _started(target: Target) -> tuple[tuple[str, ...], str]:
    """Return the words that `run` starts, as far as the file itself says, and the working directory."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    folders: dict[int, str] = {}
    started: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for stage in target.stages:
        origin = target.graph.origin(stage).stage
        folders[stage.index] = folders[origin.index] if origin else "/"
        started[stage.index] = started[origin.index] if origin else ((), ())
    for step in target.steps():
        found, index = step.instruction, step.stage.index
        entrypoint, command = started[index]
        if found.name == "WORKDIR":
            path = step.scope.expand(found.text, found.line)
            folders[index] = posixpath.normpath(posixpath.join(folders[index], path))
        elif found.name == "ENTRYPOINT":
            started[index] = (_words(found), ())
        elif found.name == "CMD":
            started[index] = (entrypoint, _words(found))
    last = target.stages[-1].index
    entrypoint, command = started[last]
    return (*entrypoint, *command), folders[last]


def _words(found: Instruction) -> tuple[str, ...]:
    if found.is_json:
        return found.words
    try:
        words = shlex.split(found.text, comments=True)
    except ValueError:
        return ()
    words = words[1:] if words[:1] == ["exec"] else words
    return tuple(words) if words and "=" not in words[0] else ()

"""What a Dockerfile must not do, or what no builder here does: each with its line, the reason, and another way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.bases import Graph
from factory.recipes.dockerfile.context import Context, Source, is_remote
from factory.recipes.dockerfile.instructions import SyntaxProblem
from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.dockerfile.mounts import mounts_of
from factory.recipes.dockerfile.steps import Target
from factory.recipes.dockerfile.variables import PREDEFINED, platform_arguments
from factory.recipes.model import Place, Problem, ProblemError

_OFFICIAL = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:[:@]\S+)?", re.ASCII)
_OCTAL = re.compile(r"[0-7]{1,4}", re.ASCII)
_PLAIN = re.compile(r"[^\s'\"\\]+")
_SECRETS = {
    "secret": "would give a secret of this machine to the recipe's commands, which anybody may have written",
    "ssh": "would let the recipe's commands, which anybody may have written, use your SSH keys",
}
_WITHOUT_SECRET = "fetch what needs a login before the build, put it in the recipe's folder, and COPY it"  # noqa: S105
_FLAGS = {
    "exclude": "write what to leave out in .dockerignore",
    "parents": "write one COPY for each folder",
    "keep-git-dir": "clone the repository with RUN git clone",
    "unpack": "unpack the archive with RUN tar",
    "checksum": "download it with RUN curl, and check it with sha256sum -c",
    "device": "remove it: builds have no devices; a test with gpu = true has",
}
_TARGET = '[build] target = "NAME" in recipe.toml'


def problems(
    dockerfile: Dockerfile, args: Mapping[str, str], target: str, arch: str, context: Context
) -> Iterator[Problem]:
    """Yield every reason why this Dockerfile is not built. All stages count, also those that the target skips.

    args: `[build] args`. context: the recipe's folder.
    """
    for directive in dockerfile.directives:
        if directive.name == "syntax" and _OFFICIAL.fullmatch(directive.value) is None:
            message = f"the frontend {shown(directive.value)} is a program that reads this file, and it is not run"
            yield Problem(
                dockerfile.at(directive.line), message, "write # syntax=docker/dockerfile:1, or remove the line"
            )
    for stage in dockerfile.stages:
        for found in stage.instructions:
            for message, remedy in _of_instruction(found):
                yield Problem(dockerfile.at(found.line), message, remedy)
    yield from unused_arguments(dockerfile, args)
    try:
        needed = Target(dockerfile, args, target, arch)
        yield from _other_platforms(needed.graph, needed, arch)
        sources = needed.sources()
    except ProblemError as error:
        yield error.problem
        return
    for source in sources:
        yield from _of_source(context, source)


def _of_source(context: Context, source: Source) -> Iterator[Problem]:
    try:
        context.entries((source,))
    except ProblemError as error:
        yield error.problem


def refuse(dockerfile: Dockerfile, args: Mapping[str, str], target: str, arch: str, context: Context) -> None:
    """Raise ProblemError for the first reason why this Dockerfile is not built."""
    found = next(problems(dockerfile, args, target, arch, context), None)
    if found is not None:
        raise ProblemError(found)


def unused_arguments(dockerfile: Dockerfile, args: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each argument of `[build] args` that no ARG declares."""
    declared = {pair.name for found in dockerfile.arguments for pair in found.pairs}
    for stage in dockerfile.stages:
        declared |= {pair.name for found in stage.instructions if found.name == "ARG" for pair in found.pairs}
    for name in sorted(args.keys() - declared - PREDEFINED - platform_arguments("").keys()):
        near = get_close_matches(name, declared, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"write ARG {name} in the Dockerfile, or remove it"
        place = Place(dockerfile.path.parent / "recipe.toml")
        yield Problem(place, f"the argument {shown(name)} of [build] args has no ARG in the Dockerfile", remedy)


def _other_platforms(graph: Graph, needed: Target, arch: str) -> Iterator[Problem]:
    for stage in needed.stages:
        origin = graph.origin(stage)
        if origin.arch != arch:
            message = f"FROM: this stage is for {origin.arch}, in an image for {arch}: it cannot run here"
            yield Problem(needed.dockerfile.at(stage.line), message, "remove --platform, or write $TARGETPLATFORM")


def _of_instruction(found: Instruction) -> Iterator[tuple[str, str]]:
    inner = found.trigger or found
    for flag in inner.flags:
        if flag.name in _FLAGS and (flag.value or "").lower() != "false":
            yield f"{inner.name} --{flag.name} is not supported here", _FLAGS[flag.name]
        elif flag.name in ("chown", "chmod", "from", "network") and _PLAIN.fullmatch(flag.value or "") is None:
            yield f"{inner.name} --{flag.name}={shown(flag.value or '')} has blanks or quotes", "write it without"
        elif flag.name == "chmod" and "$" not in (flag.value or "") and _OCTAL.fullmatch(flag.value or "") is None:
            yield (
                f"{inner.name} --chmod={shown(flag.value or '')} is not a number",
                "write an octal mode, as in --chmod=755",
            )
    if inner.name == "RUN":
        yield from _of_run(inner)
    if inner.name == "ADD":
        for source in filter(is_remote, inner.words[:-1]):
            file = source.partition("#")[0].partition("?")[0]
            if not source.lower().startswith(("http://", "https://")) or file.endswith(".git"):
                yield f"ADD {shown(source)} fetches a repository", "clone it with RUN git clone, at a full commit hash"


def _of_run(found: Instruction) -> Iterator[tuple[str, str]]:
    if (found.flag("security") or "sandbox").lower() != "sandbox":
        yield f"RUN --security={shown(found.flag('security') or '')} is not allowed: builds are contained", "remove it"
    if (found.flag("network") or "default").lower() == "none":
        yield "RUN --network=none is not supported here: a build shares the machine's network", "remove it"
    try:
        mounts = mounts_of(found)
    except SyntaxProblem as error:
        yield str(error), error.remedy
        return
    for mount in mounts:
        if mount.kind in _SECRETS:
            yield f"RUN --mount=type={mount.kind} {_SECRETS[mount.kind]}", _WITHOUT_SECRET

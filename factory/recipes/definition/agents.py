"""The headers that a definition may have: allowed bootstrap agents, and the allowed values of their headers.

An agent is allowed only if, for all allowed headers, no program chosen by the recipe runs on the build host outside of
the container, and no login is sent to a host chosen by the recipe. In Apptainer 1.4
(internal/pkg/build/sources/conveyorPacker_*.go):

- docker, oras, library and shub fetch an image and unpack it. `Library:` and a host in a library's name decide where
  the user's library token is sent; `Registry:` and `Namespace:` are prefixed to a name that was checked without them.
- debootstrap runs the host's debootstrap, which reads `OSVersion:` as the name of one of its scripts, and accepts
  mirrors such as `file:` and `ssh:`. It checks the archive's signature if the host has the archive's keyring, and the
  packages' scripts run in a plain chroot. So a recipe can name the archives of Debian and Ubuntu; any other mirror is
  configured by the factory's owner.
- busybox downloads a program and runs it on the host. arch downloads a pacman configuration, whose hooks are programs.
  yum and dnf check no signatures (`gpgcheck=0`), and accept options, files and URLs as packages; `SetOpt:` sets any
  option. zypper imports any key that its URLs offer; its registration code is a secret.
- buildkit and dockerfile (since 1.5) hand the recipe's folder to a daemon of the host, which runs the Dockerfile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Optional

from factory.errors import UsageError
from factory.oci.names import docker_reference, recipe_name
from factory.recipes.definition.definition import Definition, Header, Stage
from factory.recipes.definition.refused import refusal
from factory.recipes.definition.templates import TEMPLATE, shown
from factory.recipes.model import Place, Problem, ProblemError

Wrong = tuple[str, str]
"""What is wrong with a header's value, and how to fix it."""

Shape = Callable[[str], Optional[Wrong]]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_PACKAGES = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:[ ,]+[a-z0-9][a-z0-9+.-]*)*", re.ASCII)
_LIBRARY = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/){0,2}[A-Za-z0-9][A-Za-z0-9._-]*(?::[A-Za-z0-9][A-Za-z0-9._-]*)?")
_ARCHIVE = re.compile(
    r"https?://(?:[a-z0-9-]+\.)*(?:debian\.org|ubuntu\.com)(?::[0-9]{1,5})?(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*/?", re.ASCII
)
_HOST_SECTIONS = ("setup", "pre", "appfiles")


@dataclass(frozen=True)
class Agent:
    """A bootstrap agent: its required and its optional headers."""

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape]

    @property
    def headers(self) -> Mapping[str, Shape]:
        """All allowed headers except `Bootstrap:`."""
        return {**self.required, **self.optional, "Stage": _word}


def _word(value: str) -> Wrong | None:
    if _WORD.fullmatch(value):
        return None
    return f"{shown(value)} is not a plain word", "use letters, digits and . _ - only, as in bookworm"


def _packages(value: str) -> Wrong | None:
    if any(word.startswith("-") for word in value.replace(",", " ").split()):
        return "an option is among the packages", "list package names only"
    return None if _PACKAGES.fullmatch(value) else ("not everything in it is a package name", "list package names only")


def _named(check: Callable[[str], object]) -> Shape:
    """Return a shape that uses a parser of names."""

    def shape(value: str) -> Wrong | None:
        try:
            check(value)
        except UsageError as error:
            return str(error), error.fix or "write NAME:TAG"
        return None

    return shape


def _library(value: str) -> Wrong | None:
    if _LIBRARY.fullmatch(value):
        return None
    return f"{shown(value)} is not a library image", "write ENTITY/COLLECTION/CONTAINER:TAG, without a host"


def _archive(value: str) -> Wrong | None:
    if _ARCHIVE.fullmatch(value):
        return None
    remedy = "write {{ debian_mirror }}, and set debian_mirror in factory.toml"
    return f"{shown(value)} is not a Debian or Ubuntu archive", remedy


_IMAGE = Agent({"From": _named(docker_reference)}, {})
AGENTS: Mapping[str, Agent] = {
    "docker": _IMAGE,
    "oras": _IMAGE,
    "recipe": Agent({"From": _named(recipe_name)}, {}),
    "library": Agent({"From": _library}, {}),
    "shub": Agent({"From": _library}, {}),
    "debootstrap": Agent({"OSVersion": _word, "MirrorURL": _archive}, {"Include": _packages}),
    "scratch": Agent({}, {}),
}


def host_problems(definition: Definition, debian_mirror: str, recipes: Collection[str] = ()) -> Iterator[Problem]:
    """Yield everything in a bound definition that would access the build host.

    debian_mirror: the value of that argument. The factory sets it, so it may be any mirror. recipes: the names of the
    repository's recipes, for remedies.
    """
    for stage in definition.stages:
        for name in _HOST_SECTIONS:
            for section in stage.named(name):
                yield section_problem(name, Place(definition.path, section.line))
        for line, message, remedy in _header_problems(stage, debian_mirror, recipes):
            yield Problem(Place(definition.path, line), message, remedy)


def refuse_host(definition: Definition, debian_mirror: str) -> None:
    """Raise ProblemError, with the first problem, for a bound definition that would access the build host."""
    found = next(host_problems(definition, debian_mirror), None)
    if found is not None:
        raise ProblemError(found)


def section_problem(name: str, place: Place) -> Problem:
    """Return the problem of a section that the engine runs on the host."""
    if name == "appfiles":  # it reads any path of the host, and writes to the host if a destination contains ..
        remedy = "copy the files with %files to /scif/apps/NAME/"
        return Problem(place, "%appfiles can read and write any file of the build host", remedy)
    message = f"%{name} runs on the build host, outside of the container"
    remedy = "copy files with %files, run commands in %post, and compile in an earlier stage (%files from STAGE)"
    return Problem(place, message, remedy)


def _header_problems(stage: Stage, debian_mirror: str, recipes: Collection[str]) -> Iterator[tuple[int, str, str]]:
    header = stage.header("Bootstrap")
    name, line = (header.value, header.line) if header else ("", stage.line)
    agent = AGENTS.get(name)
    if agent is None:
        if TEMPLATE.search(name) is None:  # an argument without a value, which has its own problem
            yield line, *(refusal(name, stage.value("From"), recipes) or _unknown(name))
        return
    for key in agent.required:
        if not stage.value(key) and not (key == "MirrorURL" and stage.header(key) and not debian_mirror):
            yield line, f"Bootstrap: {name} needs the header {key}:", f"add a line {key}: below it"
    for header in stage.headers:
        if header.key != "Bootstrap":
            yield from _value_problems(name, agent, header, debian_mirror)


def _value_problems(name: str, agent: Agent, header: Header, debian_mirror: str) -> Iterator[tuple[int, str, str]]:
    shape = agent.headers.get(header.key)
    if shape is None:
        known = ", ".join(f"{key}:" for key in agent.headers)
        message = f"{header.key}: cannot be used with Bootstrap: {name}"
        yield header.line, message, _INSTEAD.get(header.key, f"remove it; allowed here: {known}")
    elif header.value and not TEMPLATE.search(header.value):
        is_configured = header.key == "MirrorURL" and header.value == debian_mirror
        if not is_configured and (wrong := shape(header.value)):
            yield header.line, f"{header.key}: {wrong[0]}", wrong[1]


_BUILDKIT_ONLY = "remove it; the engine reads it with Bootstrap: buildkit only"
_INSTEAD = {
    "Registry": "write it in From:, as in From: REGISTRY/NAMESPACE/NAME:TAG",
    "Namespace": "write it in From:, as in From: REGISTRY/NAMESPACE/NAME:TAG",
    "Library": "remove it; the engine's own settings choose the library (apptainer remote)",
    "Target": _BUILDKIT_ONLY,
    "Frontend": _BUILDKIT_ONLY,
    "Filename": _BUILDKIT_ONLY,
    "BuildArgs": 'write args = { NAME = "value" } under [build] in recipe.toml, and {{ NAME }} in the definition',
}


def _unknown(name: str) -> tuple[str, str]:
    plain = name.lower().partition(":")[0]
    if plain in AGENTS:
        why = "must be lower case" if plain == name.lower() else "is not the name of an agent"
        return f"Bootstrap: {shown(name)} {why}", f"write Bootstrap: {plain}"
    near = get_close_matches(plain[:100], AGENTS, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(sorted(AGENTS))}"
    return f"Bootstrap: {shown(name)} is unknown", remedy

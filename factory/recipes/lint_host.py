"""Checks that keep a recipe away from the machine that builds it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from factory.recipes.content import appfiles_problem, copied_files, refuse_shell
from factory.recipes.model import Place, Problem, ProblemError
from factory.recipes.subject import Subject
from factory.recipes.templates import TEMPLATE, shown

_AGENTS = frozenset(
    {"docker", "recipe", "library", "shub", "oras", "debootstrap", "yum", "dnf", "zypper", "arch", "busybox", "scratch"}
)
_HOST_AGENTS = frozenset({"localimage", "oci", "oci-archive", "docker-archive", "docker-daemon", "dockerfile"})
_HOST_SECTIONS = ("setup", "pre")
# debootstrap takes its suite for the name of a script on the host.
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _host_scripts(subject: Subject) -> Iterator[Problem]:
    for stage in subject.definition.stages:
        for name in _HOST_SECTIONS:
            for section in stage.named(name):
                message = f"%{name} runs on the build host, outside of the container"
                yield subject.error(section.line, message, "do it in %post, and bring files in with %files")
        for section in stage.named("appfiles"):
            yield appfiles_problem(Place(subject.definition.path, section.line))


def _agents(subject: Subject) -> Iterator[Problem]:
    for stage in subject.stages():
        header = stage.header("Bootstrap")
        agent = header.value.lower() if header else ""
        line = header.line if header else stage.line
        if agent in _HOST_AGENTS:
            remedy = "build upon docker://NAME or recipe://NAME, named in recipe.toml under [build] base"
            yield subject.error(line, f"Bootstrap: {agent} reads files of the build host", remedy)
        elif agent not in _AGENTS:
            yield subject.error(
                line, f"Bootstrap: {shown(agent)} is unknown", f"known are {', '.join(sorted(_AGENTS))}"
            )


def _host_arguments(subject: Subject) -> Iterator[Problem]:
    """Headers that become arguments of debootstrap, yum or zypper on the host."""
    for stage in subject.stages():
        include = stage.header("Include")
        if include and any(word.startswith("-") for word in include.value.split()):
            yield subject.error(include.line, "Include: holds an option", "name packages only")
        suite = stage.header("OSVersion")
        if suite and _SUITE.fullmatch(suite.value) is None and not TEMPLATE.search(suite.value):
            yield subject.error(
                suite.line, f"OSVersion: {shown(suite.value)} is not a plain word", "write, say, bookworm"
            )


def _sources(subject: Subject) -> Iterator[Problem]:
    for section, copy in subject.copies():
        place = Place(subject.definition.path, copy.line)
        if TEMPLATE.search(copy.source):  # an argument without a value, which has its own problem
            continue
        try:
            if section.source_stage:
                refuse_shell(copy.source, place)
            else:
                # Walked to the end: a link that leaves may stand deep in a folder.
                deque(copied_files(subject.recipe.folder, copy, place), maxlen=0)
        except ProblemError as error:
            yield error.problem


CHECKS = (_host_scripts, _agents, _host_arguments, _sources)

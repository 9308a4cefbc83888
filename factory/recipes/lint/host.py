"""Checks that protect the build host from a recipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from factory.recipes.content import Walk, copied_files, refuse_shell
from factory.recipes.definition.agents import host_problems
from factory.recipes.definition.arguments import ANY_MIRROR
from factory.recipes.definition.templates import TEMPLATE, shown
from factory.recipes.inside import leaves
from factory.recipes.lint.setup import instead
from factory.recipes.lint.shell import commands_of
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Place, Problem, ProblemError

TESTS = "tests"


def _host(subject: Subject) -> Iterator[Problem]:
    for definition in subject.bound:
        yield from host_problems(definition, ANY_MIRROR, subject.others)


def _sources(subject: Subject) -> Iterator[Problem]:
    walk = Walk(subject.recipe.folder)
    for section, copy in subject.copies():
        place = Place(subject.definition.path, copy.line)
        if TEMPLATE.search(copy.source):  # an argument without a value, which has its own problem
            continue
        try:
            if section.source_stage:
                refuse_shell(copy.source, place)
            else:
                # Search all folders: a link that leaves the recipe's folder can be anywhere below a source.
                deque(copied_files(walk, copy, place), maxlen=0)
        except ProblemError as error:
            yield error.problem
        if walk.is_over:
            return


def _links(subject: Subject) -> Iterator[Problem]:
    """Report links out of the folder. Only `tests` is an error: tests would see another folder of this machine."""
    folder = subject.recipe.folder
    for path in sorted(folder.iterdir()):
        if why := leaves(folder, path.name):
            message = f"{path.name} {why}: builds and tests ignore it"
            yield Problem(Place(path), message, "replace the link by its target, or remove it", path.name != TESTS)


def _host_scripts(subject: Subject) -> Iterator[Problem]:
    """Say of each command of `%setup` and `%pre` where it belongs; the section itself is an error of _host."""
    for stage in subject.definition.stages:
        for name in ("setup", "pre"):
            for command in commands_of(stage, name):
                if remedy := instead(command):
                    message = f"%{name} cannot run {shown(' '.join(command.words))}"
                    yield subject.warning(command.line, message, remedy)


FOLDER_CHECKS = (_links,)
CHECKS = (_host, _host_scripts, _sources, *FOLDER_CHECKS)

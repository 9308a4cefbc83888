"""Checks that keep a recipe away from the machine that builds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from factory.recipes.content import Walk, copied_files, refuse_shell
from factory.recipes.definition.agents import host_problems
from factory.recipes.definition.arguments import ANY_MIRROR
from factory.recipes.definition.templates import TEMPLATE
from factory.recipes.inside import leaves
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Place, Problem, ProblemError

TESTS = "tests"


def _host(subject: Subject) -> Iterator[Problem]:
    for definition in subject.bound:
        yield from host_problems(definition, ANY_MIRROR)


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
                # Walked to the end: a link that leaves may stand deep in a folder.
                deque(copied_files(walk, copy, place), maxlen=0)
        except ProblemError as error:
            yield error.problem
        if walk.is_over:
            return


def _links(subject: Subject) -> Iterator[Problem]:
    """Links out of the folder. Tests would see another folder of this machine; nothing else is reached by one."""
    folder = subject.recipe.folder
    for path in sorted(folder.iterdir()):
        if why := leaves(folder, path.name):
            message = f"{path.name} {why}: builds and tests do not see it"
            yield Problem(Place(path), message, "put what it points to there, or remove it", path.name != TESTS)


CHECKS = (_host, _sources, _links)

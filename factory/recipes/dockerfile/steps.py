"""Walk through the instructions that a build of a target runs, and say what each one reads from the build context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.bases import Graph
from factory.recipes.dockerfile.context import Source, is_remote
from factory.recipes.dockerfile.instructions import SyntaxProblem, here_document
from factory.recipes.dockerfile.matching import WordError, Work
from factory.recipes.dockerfile.model import Dockerfile, Instruction, Stage
from factory.recipes.dockerfile.mounts import mounts_of
from factory.recipes.dockerfile.variables import Scope
from factory.recipes.dockerfile.words import unset
from factory.recipes.model import Problem, ProblemError


@dataclass(frozen=True)
class Step:
    """An instruction of a needed stage, and the variables before it. is_complete: no base image could add some."""

    stage: Stage
    instruction: Instruction
    scope: Scope
    is_complete: bool


class Target:
    """What a build of a target needs. args: build arguments. target: '' for the last stage. Raises ProblemError."""

    def __init__(self, dockerfile: Dockerfile, args: Mapping[str, str], target: str, arch: str) -> None:
        self.dockerfile = dockerfile
        self.args = args
        self._work = Work()
        self.graph = Graph(dockerfile, args, arch, self._work)
        self.stages = self.graph.needed(target)  # the target is the last of them

    def steps(self) -> Iterator[Step]:
        """Yield every instruction in the order of the file. The scope of a step changes when the next one is taken."""
        scopes: dict[int, tuple[Scope, bool]] = {}
        for stage in self.stages:
            origin = self.graph.origin(stage)
            if origin.stage is not None:
                above, is_complete = scopes[origin.stage.index]
                scope = above.inherited()
            else:
                scope = Scope(self.dockerfile, self.args, self.graph.shared, self._work)
                is_complete = not origin.image
            scopes[stage.index] = scope, is_complete
            for instruction in stage.instructions:
                yield Step(stage, instruction, scope, is_complete)
                if instruction.name == "ARG":
                    scope.declare(instruction)
                elif instruction.name == "ENV":
                    scope.set_environment(instruction)

    def sources(self) -> tuple[Source, ...]:
        """Return what the instructions read from the build context. Raises ProblemError."""
        return tuple(source for step in self.steps() for source in _sources(step))


def _sources(step: Step) -> Iterator[Source]:
    found = step.instruction
    if found.name in ("COPY", "ADD") and found.flag("from") is None:
        for word in found.words[:-1]:
            if not found.is_json and here_document(word):
                continue
            path = _expanded(step, word)
            if not (found.name == "ADD" and is_remote(path)):
                yield Source(found.name, path, found.line)
    elif found.name == "RUN":
        try:
            mounts = mounts_of(found)
        except SyntaxProblem as error:
            raise ProblemError(Problem(step.scope.dockerfile.at(found.line), str(error), error.remedy)) from error
        for mount in mounts:
            if mount.kind == "bind" and not mount.stage:
                yield Source("RUN --mount", _expanded(step, mount.source or "."), found.line)


def _expanded(step: Step, word: str) -> str:
    line, scope = step.instruction.line, step.scope
    try:
        missing = unset(word, scope.variables, scope.dockerfile.escape)
    except WordError:  # reported by expand
        missing = ()
    if missing and not step.is_complete:
        message = f"{step.instruction.name} {shown(word)}: neither ARG nor ENV above gives {missing[0]} a value"
        remedy = "write the path, or ARG with a default: the files of a build must be known before it starts"
        raise ProblemError(Problem(scope.dockerfile.at(line), message, remedy))
    return scope.expand(word, line)

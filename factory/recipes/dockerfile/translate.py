"""Translate a Dockerfile into an Apptainer definition file, and report every loss.

The result is one stage of the definition for each stage that the target needs, and for each image that files are
copied from. A stage that is based on another stage repeats that one's instructions: a definition's stage cannot begin
with another stage. User documentation: docs/dockerfiles.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from factory.oci.names import docker_reference
from factory.recipes.definition.parser import scan
from factory.recipes.dockerfile.bases import SCRATCH, Graph
from factory.recipes.dockerfile.copying import Copier, Source
from factory.recipes.dockerfile.instructions import SyntaxProblem
from factory.recipes.dockerfile.matching import WordError, Work
from factory.recipes.dockerfile.model import Dockerfile, Instruction, Stage
from factory.recipes.dockerfile.mounts import mounts_of
from factory.recipes.dockerfile.programs import finish
from factory.recipes.dockerfile.running import Runner
from factory.recipes.dockerfile.sections import Sections
from factory.recipes.dockerfile.source_tree import Tree
from factory.recipes.dockerfile.stage import SIMPLE, Report, StageState
from factory.recipes.dockerfile.variables import OF_THE_ENGINE, Scope
from factory.recipes.dockerfile.words import CLOSE, OPEN, unset
from factory.recipes.model import Problem, ProblemError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, for an image without one
_WITHOUT_SHELL = ("distroless", "chainguard/static")


@dataclass(frozen=True)
class Translation:
    """A definition file. losses: what it does otherwise than the Dockerfile. notes: what only the base can tell."""

    text: str
    losses: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def translate(
    dockerfile: Dockerfile, context: Tree, args: Mapping[str, str], *, target: str = "", arch: str = "amd64"
) -> Translation:
    """Translate the stages that the target needs. args, target, arch: as for bases.images(). Raises ProblemError."""
    return _Translator(dockerfile, context, args, target, arch).translation()


class _Translator:
    def __init__(self, dockerfile: Dockerfile, context: Tree, args: Mapping[str, str], target: str, arch: str) -> None:
        self._file = dockerfile
        self._context = context
        self._args = args
        self._arch = arch
        self._work = Work()
        self._graph = Graph(dockerfile, args, arch, self._work)
        self._target = self._graph.target(target)
        self._report = Report(dockerfile)
        self._done: dict[str, tuple[Sections, bool]] = {}  # by the name of the stage
        self._names = {stage.index: stage.name or f"stage{stage.index}" for stage in dockerfile.stages}

    def translation(self) -> Translation:
        self._check_characters()
        final = self._stage(self._target, is_final=True)
        stages = [sections for sections, _ in self._done.values()] + [final]
        text = f"# Translated from {self._file.path.name} by singfactory convert.\n"
        text = "\n".join([text, *(sections.text() for sections in stages)])
        _, problems = scan(text, self._file.path.with_suffix(".def"))
        if problems:  # for example a line that is too long
            message = f"the definition would not be valid: {problems[0].message}"
            raise ProblemError(Problem(self._file.at(self._target.line), message, problems[0].remedy))
        report = self._report
        return Translation(text, _sorted(report.losses), _sorted(report.notes))

    def _check_characters(self) -> None:
        for stage in self._file.stages:
            for found in stage.instructions:
                texts = (found.text, *(document.body for document in found.here_documents))
                if any(mark in text for mark in (OPEN, CLOSE) for text in texts):
                    message = "the private characters U+E000 and U+E001 cannot be translated"
                    raise ProblemError(Problem(self._file.at(found.line), message, "write them as an escape sequence"))

    def _chain(self, stage: Stage) -> list[Stage]:
        """Return the stages that a stage is based on, the first one first, and itself."""
        chain = [stage]
        while (base := self._graph.origin(chain[0]).stage) is not None:
            chain.insert(0, base)
        return chain

    def _stage(self, stage: Stage, *, is_final: bool) -> Sections:
        chain = self._chain(stage)
        origin = self._graph.origin(chain[0])
        out = Sections("" if is_final else self._names[stage.index], [])
        runs = any(found.name == "RUN" for one in chain for found in one.instructions)
        has_shell = runs if not origin.image else not any(part in origin.image for part in _WITHOUT_SHELL)
        scope = Scope(self._file, self._args, self._graph.shared, self._work, refers=bool(origin.image))
        state = StageState(out, scope, self._report, self._context, is_final, has_shell)
        if not origin.image:
            scope.variables["PATH"] = _PATH
            state.workdir, state.entrypoint, state.command = "/", (), ()
        self._begin(state, chain[0], origin.image, origin.arch)
        for one in chain:
            self._instructions(state, one)
        if is_final:
            finish(state, stage.line)
        else:
            self._done[out.name] = (out, has_shell)
        return out

    def _begin(self, state: StageState, first: Stage, image: str, arch: str) -> None:
        state.out.headers = _headers(image, state.out.name)
        if arch != self._arch:
            message = f"FROM --platform={first.platform}: the engine takes the image of the machine that builds"
            self._report.lose(first.line, message, "remove --platform")
        if image:
            message = f"{image}: its WORKDIR, USER, SHELL and ONBUILD cannot be seen here, and are not used"
            self._report.note(first.line, message, "compare: skopeo inspect --config docker://IMAGE")

    def _instructions(self, state: StageState, stage: Stage) -> None:
        has_command = False
        for found in stage.instructions:
            self._report_variables(state, found)
            if found.name in ("COPY", "ADD"):
                self._copy(state, stage, found)
            elif found.name == "RUN":
                self._run(state, stage, found)
            else:
                SIMPLE[found.name](state, found)
            has_command = has_command or found.name == "CMD"
            if found.name == "ENTRYPOINT" and not has_command:
                state.command = ()

    def _report_variables(self, state: StageState, found: Instruction) -> None:
        """Report variables that Docker has not, and the engine has: HOME, above all."""
        if "$" not in found.text or found.name in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL", "ONBUILD"):
            return
        with contextlib.suppress(WordError):  # has a message of its own
            names = unset(found.text, state.scope.variables, self._file.escape)
            for name in (name for name in names if name in OF_THE_ENGINE):
                message = f"{found.name}: ${name} is empty, as in Docker if the base image does not set it"
                self._report.lose(found.line, message, f"write ENV {name}=VALUE above, or the value itself")

    def _copy(self, state: StageState, stage: Stage, found: Instruction) -> None:
        name = found.flag("from") if found.name == "COPY" else None
        if name:
            Copier(state).from_stage(found, self._source(stage, name, found.line))
        else:
            Copier(state).from_context(found)

    def _run(self, state: StageState, stage: Stage, found: Instruction) -> None:
        bound: dict[int, list[str]] = {}
        copier = Copier(state)
        try:
            mounts = mounts_of(found)
        except SyntaxProblem as error:
            raise ProblemError(Problem(self._file.at(found.line), str(error), error.remedy)) from error
        for index, mount in enumerate(mounts):
            if mount.kind == "bind":
                source = self._source(stage, mount.stage, found.line) if mount.stage else None
                bound[index] = copier.bind(found, source, mount.source, index)
        Runner(state).run(found, bound)

    def _source(self, stage: Stage, name: str, line: int) -> Source:
        """Return the stage of the definition that ``--from`` means; it is translated before the one that uses it."""
        source = self._graph.source(stage, name, line)
        if isinstance(source, Stage):
            key = self._names[source.index]
            if key not in self._done:
                self._stage(source, is_final=False)
        else:
            key = self._named(source)
            if key not in self._done:
                has_shell = bool(source) and not any(part in source for part in _WITHOUT_SHELL)
                self._done[key] = (Sections(key, _headers(source, key)), has_shell)
        return Source(key, *self._done[key])

    def _named(self, image: str) -> str:
        """Return a name for the stage of an image, which no stage of the file has."""
        plain = "".join(letter if letter.isalnum() else "-" for letter in image or SCRATCH)
        return f"image-{plain.strip('-')}"


def _headers(image: str, name: str) -> list[str]:
    lines = [f"Bootstrap: docker\nFrom: {_address(image)}" if image else "Bootstrap: scratch"]
    return [*lines, f"Stage: {name}"] if name else lines


def _address(image: str) -> str:
    """Return an image's name for `From:`, which has a tag or a digest, not both."""
    if "@" not in image:
        return image
    docker_reference(image)
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


def _sorted(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.place.line))

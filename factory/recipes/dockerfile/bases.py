"""Which stages and images a build of a Dockerfile needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from factory.errors import UsageError
from factory.oci.names import docker_reference
from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.instructions import SyntaxProblem
from factory.recipes.dockerfile.matching import Work
from factory.recipes.dockerfile.model import Dockerfile, Instruction, Stage
from factory.recipes.dockerfile.mounts import mounts_of
from factory.recipes.dockerfile.variables import expand_from, shared_arguments
from factory.recipes.model import Problem, ProblemError

SCRATCH = "scratch"
ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "x86-64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
_SIMILAR = 0.75  # of names that are probably the same, misspelled


@dataclass(frozen=True)
class BaseImage:
    """An image outside of the file that a build needs.

    stage: the index of the stage that uses it. image: its name with variables replaced, as for docker pull. line: of
    FROM, ``COPY --from`` or ``RUN --mount=from=``. arch: amd64 or arm64.
    """

    stage: int
    image: str
    line: int
    arch: str


@dataclass(frozen=True)
class Origin:
    """What a stage starts from: an earlier stage, an image, or neither (scratch). arch: amd64 or arm64."""

    stage: Stage | None
    image: str
    arch: str


def images(dockerfile: Dockerfile, args: Mapping[str, str], target: str, arch: str) -> tuple[BaseImage, ...]:
    """Return the images that a build needs, each use once, in the file's order. Stages that it skips do not count.

    args: ``--build-arg``. target: a stage's name or index, '' for the last. arch: amd64 or arm64. Raises ProblemError,
    with file and line, for an unknown stage, platform or variable, and for what is not the name of an image.
    """
    graph = Graph(dockerfile, args, arch)
    found: list[BaseImage] = []
    for stage in graph.needed(target):
        origin = graph.origin(stage)
        if origin.image:
            found.append(BaseImage(stage.index, origin.image, stage.line, origin.arch))
        for line, source in graph.sources(stage):
            if isinstance(source, str) and source:
                found.append(BaseImage(stage.index, source, line, arch))
    return tuple(dict.fromkeys(found))


class Graph:
    """The stages of a Dockerfile and what each depends on. Its arguments are those of images()."""

    def __init__(self, dockerfile: Dockerfile, args: Mapping[str, str], arch: str, work: Work | None = None) -> None:
        self._file = dockerfile
        self._arch = arch
        self._work = work or Work()
        self.shared = shared_arguments(dockerfile, args, arch, self._work)
        self._origins: dict[int, Origin] = {}

    def target(self, name: str) -> Stage:
        """Return the stage of ``--target``, '' for the last. Raises ProblemError."""
        stages = self._file.stages
        if not name:
            return stages[-1]
        found = self._file.stage_named(name)
        if found is None and name.isdecimal() and len(name) < 5 and int(name) < len(stages):  # noqa: PLR2004
            found = stages[int(name)]
        if found is None:
            raise ProblemError(Problem(self._file.at(0), f"there is no stage {shown(name)}", self._stages_like(name)))
        return found

    def needed(self, target: str) -> tuple[Stage, ...]:
        """Return the stages that a build of the target needs, in the file's order. Raises ProblemError."""
        waiting = [self.target(target)]
        found: dict[int, Stage] = {}
        while waiting:
            stage = waiting.pop()
            if stage.index in found:
                continue
            found[stage.index] = stage
            base = self.origin(stage).stage
            waiting += [base] if base else []
            waiting += [source for _, source in self.sources(stage) if isinstance(source, Stage)]
        return tuple(found[index] for index in sorted(found))

    def origin(self, stage: Stage) -> Origin:
        """Return what FROM names, with variables replaced. Raises ProblemError."""
        if stage.index not in self._origins:
            self._origins[stage.index] = self._origin(stage)
        return self._origins[stage.index]

    def source(self, stage: Stage, name: str, line: int) -> Stage | str:
        """Return the earlier stage or the image that ``--from=name`` means; '' for scratch. Raises ProblemError."""
        if "$" in name:
            self._refuse(line, f"--from={name}: Docker replaces no variables here", "write FROM IMAGE AS NAME above")
        found = self._file.stage_named(name, stage.index)
        if found is None and name.isdecimal():
            if len(name) > 4 or int(name) >= stage.index:  # noqa: PLR2004
                self._refuse(line, f"--from={name}: this is stage {stage.index}", "write the number of an earlier one")
            found = self._file.stages[int(name)]
        if found is None and self._file.stage_named(name):
            self._refuse(line, f"the stage {name} is not above this one", "move it up: a stage uses earlier ones")
        return found or self._image(name, line, stage.index)

    def sources(self, stage: Stage) -> Iterator[tuple[int, Stage | str]]:
        """Yield the line and the source of each ``--from`` and ``from=`` of a stage. Raises ProblemError."""
        for found in stage.instructions:
            for name in self._names(found):
                yield found.line, self.source(stage, name, found.line)

    def _names(self, found: Instruction) -> tuple[str, ...]:
        if found.name == "COPY":
            name = found.flag("from")
            return (name,) if name else ()
        if found.name != "RUN":
            return ()
        try:
            return tuple(mount.stage for mount in mounts_of(found) if mount.stage)
        except SyntaxProblem as error:
            raise ProblemError(Problem(self._file.at(found.line), str(error), error.remedy)) from error

    def _origin(self, stage: Stage) -> Origin:
        name = expand_from(self._file, stage.base, self.shared, stage.line, self._work)
        arch = self._arch
        if stage.platform:
            arch = self._platform(expand_from(self._file, stage.platform, self.shared, stage.line, self._work), stage)
        earlier = self._file.stage_named(name, stage.index) if name == name.lower() else None
        if earlier is not None:
            return Origin(earlier, "", self.origin(earlier).arch)
        return Origin(None, self._image(name, stage.line, stage.index), arch)

    def _platform(self, platform: str, stage: Stage) -> str:
        system, slash, machine = platform.lower().partition("/")
        machine, _, variant = machine.partition("/")
        arch = ARCHITECTURES.get(machine if slash else system, "")
        if not arch or (slash and system != "linux") or variant not in ("", "v8"):
            remedy = "write linux/amd64 or linux/arm64, or remove --platform"
            self._refuse(stage.line, f"FROM: the platform {shown(platform)} is not one that clusters have", remedy)
        return arch

    def _image(self, name: str, line: int, before: int) -> str:
        """Return the name of an image, '' for scratch. A name that looks like a misspelled stage is refused."""
        if name == SCRATCH:
            return ""
        stages = [stage.name for stage in self._file.stages[:before] if stage.name]
        near = get_close_matches(name[:200], stages, n=1, cutoff=_SIMILAR)
        if near and not set(name) & set("/:@."):
            remedy = f"write {near[0]} for the stage, or {name}:latest for the image"
            self._refuse(line, f"there is no stage {shown(name)} above", remedy)
        try:
            docker_reference(name)
        except UsageError as error:
            remedy = "write [HOST/]NAME[:TAG] in lower case, or the name of a stage above"
            raise ProblemError(Problem(self._file.at(line), f"not an image: {shown(name)}", remedy)) from error
        return name

    def _stages_like(self, name: str) -> str:
        names = [str(stage) for stage in self._file.stages]
        near = get_close_matches(name[:200], names, n=1)
        return f"did you mean {near[0]}?" if near else f"its stages: {' '.join(names[:20])}"

    def _refuse(self, line: int, message: str, remedy: str) -> NoReturn:
        raise ProblemError(Problem(self._file.at(line), message, remedy))

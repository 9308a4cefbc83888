"""Which variables an instruction of a Dockerfile sees: ARG, ENV, and those that Docker predefines.

Specification: Dockerfile reference, "ARG" and "Environment replacement"; BuildKit's dockerfile2llb/convert.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.matching import WordError, Work
from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.dockerfile.words import OPEN, expand, split, unset
from factory.recipes.model import Problem, ProblemError

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
# A build has them without ARG, and no image keeps them.
PREDEFINED = frozenset({*_PROXIES, *(name.lower() for name in _PROXIES)})
_LONGEST = 64 * 1024  # characters


def platform_arguments(arch: str) -> dict[str, str]:
    """Return the values that BuildKit sets: TARGETPLATFORM, BUILDARCH and so on. arch: amd64 or arm64."""
    values = {"PLATFORM": f"linux/{arch}", "OS": "linux", "ARCH": arch, "VARIANT": ""}
    return {f"{kind}{name}": value for kind in ("BUILD", "TARGET") for name, value in values.items()}


@dataclass
class Scope:
    """The variables at one point of a stage, updated instruction by instruction.

    variables: what instructions see. environment: what the image keeps (ENV). arguments: the names that ARG has
    declared in this stage. given: ``--build-arg``. shared: the arguments before the first FROM. refers: names without a
    value can be variables of the base image, and become references (words.expand).
    """

    dockerfile: Dockerfile
    given: Mapping[str, str]
    shared: Mapping[str, str]
    work: Work
    refers: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)

    def inherited(self) -> Scope:
        """Return the scope of a stage that is based on this one."""
        copies = dict(self.variables), dict(self.environment), dict(self.arguments)
        return Scope(self.dockerfile, self.given, self.shared, self.work, self.refers, *copies)

    def expand(self, text: str, line: int, *, quotes: bool = True) -> str:
        """Return text with its variables replaced. Raises ProblemError."""
        return _expanded(self.dockerfile, text, self.variables, line, self.work, quotes=quotes, refer=self.refers)

    def split(self, text: str, line: int) -> tuple[str, ...]:
        """Return the words of a text with its variables replaced. Raises ProblemError."""
        try:
            return split(text, self.variables, self.dockerfile.escape, work=self.work)
        except WordError as error:
            raise _cannot(self.dockerfile, line, text, error) from error

    def set_environment(self, found: Instruction) -> dict[str, str]:
        """Apply ENV and return its values. All of them see the values before the instruction. Raises ProblemError."""
        values = {self.expand(pair.name, found.line): self.expand(pair.value or "", found.line) for pair in found.pairs}
        self.environment.update(values)
        for name, value in values.items():
            self._set(name, value)
        return values

    def declare(self, found: Instruction) -> dict[str, str]:
        """Apply ARG and return the values that it gives; a name that has none is left out. Raises ProblemError."""
        values: dict[str, str] = {}
        for pair in found.pairs:
            value = self.given.get(pair.name)
            if value is None:
                value = self.shared.get(pair.name) if pair.value is None else self.expand(pair.value, found.line)
            if value is not None:
                values[pair.name] = self.arguments[pair.name] = value
                self._set(pair.name, value)
        return values

    def _set(self, name: str, value: str) -> None:
        """A value that is known only during the build is referred to by the variable's name."""
        if OPEN in value:
            self.variables.pop(name, None)
        else:
            self.variables[name] = value


def shared_arguments(dockerfile: Dockerfile, given: Mapping[str, str], arch: str, work: Work) -> dict[str, str]:
    """Return the values of the arguments before the first FROM, with the predefined ones. Raises ProblemError.

    given: ``--build-arg``.
    """
    values = {name: given.get(name, value) for name, value in platform_arguments(arch).items()}
    for found in dockerfile.arguments:
        for pair in found.pairs:
            if pair.name in given:
                values[pair.name] = given[pair.name]
            elif pair.value is not None:
                values[pair.name] = _expanded(dockerfile, pair.value, values, found.line, work)
    return values


def expand_from(dockerfile: Dockerfile, text: str, values: Mapping[str, str], line: int, work: Work) -> str:
    """Return the image or platform of FROM with the shared arguments replaced. Raises ProblemError if it is empty."""
    value = _expanded(dockerfile, text, values, line, work)
    if not value:
        names = unset(text, values, dockerfile.escape)
        named = f"the argument {' and '.join(names)} has no value" if names else f"{text} is empty"
        known = _declared(dockerfile.arguments)
        remedy = f"write ARG {names[0] if names else 'NAME'}=DEFAULT above the first FROM, or give --build-arg"
        if names and names[0] in known:
            remedy = f"give it one: --build-arg {names[0]}=VALUE, or ARG {names[0]}=DEFAULT in line {known[names[0]]}"
        raise ProblemError(Problem(dockerfile.at(line), f"FROM: {named}", remedy))
    return value


def _declared(instructions: Sequence[Instruction]) -> dict[str, int]:
    return {pair.name: found.line for found in instructions for pair in found.pairs}


def _expanded(
    dockerfile: Dockerfile,
    text: str,
    values: Mapping[str, str],
    line: int,
    work: Work,
    *,
    quotes: bool = True,
    refer: bool = False,
) -> str:
    try:
        escape = dockerfile.escape if quotes else "\\"
        return expand(text, values, escape, quotes=quotes, work=work, refer=refer)
    except WordError as error:
        raise _cannot(dockerfile, line, text, error) from error


def _cannot(dockerfile: Dockerfile, line: int, text: str, error: WordError) -> ProblemError:
    return ProblemError(Problem(dockerfile.at(line), f"{shown(text)}: {error}", "correct the quotes and variables"))

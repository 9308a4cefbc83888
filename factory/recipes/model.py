"""What a recipe is: one folder, read and validated, never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from factory.errors import RecipeError

_LONGEST = 1000  # characters of a message


def one_line(text: str) -> str:
    """Text of others for one line of a terminal, a log or a report: each control character becomes a ``?``."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


@dataclass(frozen=True)
class Place:
    """Where in a file something stands; line is 1-based, 0 when the file as a whole is meant."""

    path: Path
    line: int = 0

    def __str__(self) -> str:
        path = one_line(str(self.path))
        return f"{path}:{self.line}" if self.line else path


@dataclass(frozen=True)
class Problem:
    """One finding of `lint`: where, what is wrong, the way out. A warning does not stop a build.

    Names of files and the like come from strangers; message and remedy are one line each, whatever those hold.
    """

    place: Place
    message: str
    remedy: str
    warning: bool = False

    def __post_init__(self) -> None:
        """Keep each text on its line."""
        object.__setattr__(self, "message", one_line(self.message[:_LONGEST]))
        object.__setattr__(self, "remedy", one_line(self.remedy[:_LONGEST]))

    def __str__(self) -> str:
        return f"{self.place}: {'warning' if self.warning else 'error'}: {self.message}; {self.remedy}"


class ProblemError(RecipeError):
    """A problem that ends the work at once. more: how many others were found beside it."""

    def __init__(self, problem: Problem, *, why: str = "", more: int = 0, see: str = "") -> None:
        others = f"{more} more {'problem' if more == 1 else 'problems'}"
        fix = f"{problem.remedy} ({others}; {see} shows all)" if more else problem.remedy
        super().__init__(f"{problem.place}: {problem.message}", why=why, fix=fix)
        self.problem = problem


@dataclass(frozen=True)
class BuildSpec:
    """`[build]`: how the image is made. disk in bytes; base is '' or has a scheme (docker://, recipe://)."""

    definition: str = "image.def"
    base: str = ""
    arch: tuple[str, ...] = ("amd64",)
    args: Mapping[str, str] = field(default_factory=dict)
    disk: int = 10_000_000_000
    runner: str = "local"
    timeout: timedelta = timedelta(hours=2)


@dataclass(frozen=True)
class RunSpec:
    """`[run]`: what `singfactory exec` adds on the cluster; binds are mount points that the image promises."""

    gpu: str = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestSpec:
    """One `[[test]]`: a shell command inside the image, and what is expected of it."""

    __test__ = False  # the name looks like a test class to pytest

    name: str
    run: str
    exit: int = 0
    stdout: str = ""
    stdout_regex: str = ""
    timeout: timedelta = timedelta(minutes=2)
    gpu: bool = False


@dataclass(frozen=True)
class RebuildSpec:
    """`[rebuild]`: what makes a published image stale."""

    when: tuple[str, ...] = ("base-changed", "inputs-changed")
    max_age: timedelta | None = None


@dataclass(frozen=True)
class QuietSpec:
    """`[quiet]`: which of the factory's rules for quiet builds apply (quiet.py). hints: whether lint speaks of it."""

    epoch: bool = True
    locale: bool = True
    bytecode: bool = True
    caches: bool = True
    identity: bool = True
    fragments: bool = True
    hints: bool = True


@dataclass(frozen=True)
class Lifecycle:
    """`[lifecycle]`: active, deprecated or withdrawn, and a note for its users."""

    status: str = "active"
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """A recipe folder. All paths inside are relative to ``folder``."""

    folder: Path
    name: str
    version: str
    summary: str
    license: str = ""
    homepage: str = ""
    maintainers: tuple[str, ...] = ()
    build: BuildSpec = field(default_factory=BuildSpec)
    run: RunSpec = field(default_factory=RunSpec)
    tests: tuple[TestSpec, ...] = ()
    rebuild: RebuildSpec = field(default_factory=RebuildSpec)
    quiet: QuietSpec = field(default_factory=QuietSpec)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    @property
    def definition_path(self) -> Path:
        """The definition file."""
        return self.folder / self.build.definition

    @property
    def base_recipe(self) -> str:
        """The name of the recipe that this one builds upon, or ''."""
        return self.build.base.removeprefix("recipe://") if self.build.base.startswith("recipe://") else ""


@dataclass(frozen=True)
class BasePin:
    """`base.lock`: the digest that a base image had when somebody looked, and when that was (ISO 8601)."""

    base: str
    digest: str
    resolved: str

"""The recipe: one folder, read and validated; immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from factory.errors import RecipeError

_LONGEST = 1000  # characters of a message


def one_line(text: str) -> str:
    """Return untrusted text as one line for a terminal, log or report: each control character becomes a ``?``."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


@dataclass(frozen=True)
class Place:
    """A position in a file; line is 1-based, 0 for the whole file."""

    path: Path
    line: int = 0

    def __str__(self) -> str:
        path = one_line(str(self.path))
        return f"{path}:{self.line}" if self.line else path


@dataclass(frozen=True)
class Problem:
    """One finding of `lint`: where, what is wrong, and how to fix it. A warning does not stop a build.

    message and remedy can contain untrusted text, such as file names. Each is kept to one line. rule: the name of the
    check that found it, such as ``moving-tags``.
    """

    place: Place
    message: str
    remedy: str
    warning: bool = False
    rule: str = ""

    def __post_init__(self) -> None:
        """Make each text one line."""
        object.__setattr__(self, "message", one_line(self.message[:_LONGEST]))
        object.__setattr__(self, "remedy", one_line(self.remedy[:_LONGEST]))

    def __str__(self) -> str:
        return f"{self.place}: {'warning' if self.warning else 'error'}: {self.message}; {self.remedy}"


class ProblemError(RecipeError):
    """A problem that stops the command. more: the number of other problems; see: the command that shows them."""

    def __init__(self, problem: Problem, *, why: str = "", more: int = 0, see: str = "") -> None:
        others = f"{more} more {'problem' if more == 1 else 'problems'}"
        fix = f"{problem.remedy} ({others}; {see} shows all)" if more else problem.remedy
        super().__init__(f"{problem.place}: {problem.message}", why=why, fix=fix)
        self.problem = problem


@dataclass(frozen=True)
class BuildSpec:
    """`[build]`: how the image is built. disk: bytes; base: '', or with a scheme (docker://, recipe://).

    dockerfile: built instead of a definition file, which is then ''. target: its stage, '' for the last.
    """

    definition: str = "image.def"
    dockerfile: str = ""
    target: str = ""
    base: str = ""
    arch: tuple[str, ...] = ("amd64",)
    args: Mapping[str, str] = field(default_factory=dict)
    disk: int = 10_000_000_000
    runner: str = "local"
    timeout: timedelta = timedelta(hours=2)


@dataclass(frozen=True)
class RunSpec:
    """`[run]`: options that `singfactory exec` adds on the cluster. binds: mount points that the image has.

    programs: names of the programs that users call, for module files; empty: those that the image adds to its PATH.
    """

    gpu: str = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestSpec:
    """One `[[test]]`: a shell command to run in the image, and its expected result."""

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
    """`[rebuild]`: when a published image is rebuilt."""

    when: tuple[str, ...] = ("base-changed", "inputs-changed")
    max_age: timedelta | None = None


@dataclass(frozen=True)
class QuietSpec:
    """`[quiet]`: the rules for reproducible builds that apply. hints: whether lint warns of unpinned downloads."""

    epoch: bool = True
    locale: bool = True
    bytecode: bool = True
    caches: bool = True
    identity: bool = True
    fragments: bool = True
    hints: bool = True


@dataclass(frozen=True)
class ProjectSpec:
    """`[project]`: the project whose locked packages the image has. An empty source means that there is none.

    source: its web address without a login, or its folder's name; path: the folder in its repository, '' for the top.
    commit: of the lock, '' if it is in no repository; dirty: whether the lock differed from it. lock: the file's name.
    python, extras, groups, include_code: what `singfactory new` was called with, for `--update`.
    """

    source: str = ""
    path: str = ""
    commit: str = ""
    dirty: bool = False
    lock: str = ""
    python: str = ""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    include_code: bool = False

    def facts(self) -> dict[str, str]:
        """Return what a release says about the project, without empty values."""
        commit = f"{self.commit}-dirty" if self.commit and self.dirty else self.commit
        facts = {"source": self.source, "path": self.path, "commit": commit, "lock": self.lock}
        return {name: text for name, text in facts.items() if text}


@dataclass(frozen=True)
class ChecksSpec:
    """`[checks]`: reasons to ignore readiness findings, by code, or by ``CODE:PLACE`` for a path and all below it."""

    ignore: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lifecycle:
    """`[lifecycle]`: active, deprecated or withdrawn, and a note for users."""

    status: str = "active"
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """A recipe folder. All paths in it are relative to ``folder``."""

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
    checks: ChecksSpec = field(default_factory=ChecksSpec)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    project: ProjectSpec = field(default_factory=ProjectSpec)

    @property
    def definition_path(self) -> Path:
        """The path of the definition file, or of the Dockerfile."""
        return self.folder / (self.build.dockerfile or self.build.definition)

    @property
    def base_recipe(self) -> str:
        """The name of the base recipe, or ''."""
        return self.build.base.removeprefix("recipe://") if self.build.base.startswith("recipe://") else ""


@dataclass(frozen=True)
class BasePin:
    """`base.lock`: an image (``docker://NAME:TAG``), and when it was resolved (ISO 8601).

    digest: of what the tag named, an index or an image manifest. platforms: the image manifest's, by architecture.
    """

    base: str
    digest: str
    resolved: str
    platforms: Mapping[str, str] = field(default_factory=dict)

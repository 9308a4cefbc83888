"""Translate one stage of a Dockerfile, instruction by instruction, into the sections of a definition file."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.dockerfile.sections import Sections
from factory.recipes.dockerfile.shell import names_in, value
from factory.recipes.dockerfile.source_tree import Tree
from factory.recipes.dockerfile.variables import Scope
from factory.recipes.dockerfile.words import OPEN
from factory.recipes.model import Place, Problem, ProblemError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_AT_RUN_TIME = frozenset({"PATH", "LD_LIBRARY_PATH"})  # variables of which an image's own value counts, not the host's
_DEFAULT_SHELL = ("/bin/sh", "-c")
_HOST_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108 - the build machine's in %post, the node's in a job
_KNOWN_ELSEWHERE = "Apptainer has nothing like it"


@dataclass
class Report:
    """What a translation loses, and what it cannot see."""

    dockerfile: Dockerfile
    losses: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def lose(self, line: int, what: str, remedy: str) -> None:
        """Report that the definition differs from the Dockerfile."""
        self.losses.append(Problem(self.dockerfile.at(line), what, remedy, warning=True))

    def note(self, line: int, what: str, remedy: str) -> None:
        """Report what only the base image can tell."""
        self.notes.append(Problem(self.dockerfile.at(line), what, remedy, warning=True))


@dataclass
class StageState:
    """What the instructions of a stage have set so far.

    workdir: absolute, or with references; '' if only the base image knows it. entrypoint, command: None if only the
    base image knows. is_final: the stage that becomes the image. has_shell: %post can run in it. is_early: nothing has
    run yet, so `%files` may put files in place.
    """

    out: Sections
    scope: Scope
    report: Report
    context: Tree
    is_final: bool
    has_shell: bool
    workdir: str = ""
    user: str = ""
    shell: tuple[str, ...] = _DEFAULT_SHELL
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    is_early: bool = True
    workdir_line: int = 0
    folders: set[str] = field(default_factory=lambda: {"/"})
    kept: set[str] = field(default_factory=set)
    unexported: list[tuple[str, str]] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def place(self, line: int) -> Place:
        """Return a line of the Dockerfile."""
        return self.scope.dockerfile.at(line)

    def refuse(self, line: int, what: str, remedy: str) -> ProblemError:
        """Return the error of an instruction that cannot be translated at all."""
        return ProblemError(Problem(self.place(line), what, remedy))

    def run(self, statement: str, *helpers: str) -> None:
        """Add a statement to `%post`, after the variables that it may use."""
        for name, text in self.unexported:
            self.out.export(name, text)
        self.unexported = []
        self.out.run(statement, *helpers)

    def absolute(self, path: str, line: int, what: str) -> str:
        """Return a path in the image, with its last slash if it has one. Relative paths begin at the WORKDIR."""
        folder = path.endswith(("/", "/.", "/..")) or path in (".", "..", "")
        if not path.startswith("/") and not path.startswith(OPEN):
            if not self.workdir:
                remedy = "write WORKDIR with an absolute path above, or an absolute path here"
                self.report.lose(line, f"{what} is relative to the base image's WORKDIR, here taken for /", remedy)
            path = f"{self.workdir or '/'}/{path}"
        if OPEN in path:
            return path
        path = posixpath.normpath(re.sub("^/+", "/", path))
        return path if path == "/" or not folder else f"{path}/"


def workdir(state: StageState, found: Instruction) -> None:
    """Create the folder and go there."""
    path = state.absolute(state.scope.expand(found.text, found.line), found.line, f"WORKDIR {found.text}")
    path = path.rstrip("/") or "/"
    state.workdir, state.workdir_line = path, found.line
    if path == "/":
        if state.out.statements:
            state.run("cd /")
        return
    if in_host_folder(path):
        message = f"WORKDIR {path}: the image has no such folder, as /tmp belongs to the machine that builds or runs it"
        state.report.lose(found.line, message, "use a folder such as /opt/app")
    state.folders.add(path)
    if state.has_shell:
        state.run(f"mkdir -p {value(path)}\ncd {value(path)}")


def in_host_folder(path: str) -> bool:
    """Return whether a path is in a folder of the host while an image is built and used."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in _HOST_FOLDERS)


def environment(state: StageState, found: Instruction) -> None:
    """Set ENV: for the rest of `%post`, and in the image."""
    values = state.scope.set_environment(found)
    for name in [name for name in values if _NAME.fullmatch(name) is None]:
        state.report.lose(found.line, f"ENV {name}: a shell cannot set this name", "use letters, digits and _")
        del values[name]
        state.scope.environment.pop(name, None)
    # All values see the variables before this line: those that refer to others go first.
    for name in sorted(values, key=lambda name: not (names_in(values[name]) - {name}) & values.keys()):
        text = values[name]
        state.unexported.append((name, text))
        if not state.is_final:
            continue
        refers = names_in(text)
        if name in state.kept or refers - _AT_RUN_TIME or (refers and refers != {name}):
            state.kept.add(name)
            state.constants.pop(name, None)
            if state.has_shell:
                state.run(f"keep {name}", "keep")
            else:
                message = f"ENV {name} needs a variable of the base image, and the image has no shell to read it with"
                state.report.lose(found.line, message, "write the value")
        elif refers:
            state.out.environment.append(f"export {name}={value(text)}")
        else:
            state.constants[name] = text


def arguments(state: StageState, found: Instruction) -> None:
    """Set ARG: for the rest of `%post`."""
    overriding = [pair.name for pair in found.pairs if pair.name in state.scope.environment]
    for name in overriding:
        message = (
            f"ARG {name} after ENV {name}: Docker's builders disagree which one counts; here ARG does, as in BuildKit"
        )
        state.report.lose(found.line, message, "use another name for one of them")
    for name, text in state.scope.declare(found).items():
        if _NAME.fullmatch(name):
            state.unexported.append((name, text))
        else:
            state.report.lose(found.line, f"ARG {name}: a shell cannot set this name", "use letters, digits and _")


def user(state: StageState, found: Instruction) -> None:
    """Remember USER, for RUN."""
    name = state.scope.expand(found.text, found.line)
    if OPEN in name:
        raise state.refuse(found.line, f"USER {found.text} is set by the base image", "write the user's name")
    state.user = "" if name in ("root", "0", "root:root", "0:0") else name
    if state.is_final and state.user:
        message = f"USER {name}: on a cluster, an image runs as the user who starts it"
        state.report.lose(found.line, message, "let everybody read what the program needs: chmod -R a+rX")


def labels(state: StageState, found: Instruction) -> None:
    """Set LABEL."""
    for pair in found.pairs:
        name = state.scope.expand(pair.name, found.line)
        text = state.scope.expand(pair.value or "", found.line)
        if not name or name.startswith("#") or any(letter.isspace() for letter in name) or text != text.strip():
            message = f"LABEL {name}: blanks in a name, or around a value, cannot be kept"
            state.report.lose(found.line, message, "write the label without them")
            continue
        state.labels[name] = text


def maintainer(state: StageState, found: Instruction) -> None:
    """Docker keeps MAINTAINER as the image's author; here it becomes a label."""
    state.labels["maintainer"] = found.text


def volumes(state: StageState, found: Instruction) -> None:
    """Create the mount points of VOLUME."""
    paths = [state.scope.expand(word, found.line) for word in found.words]
    folders = [state.absolute(path, found.line, f"VOLUME {path}").rstrip("/") or "/" for path in paths]
    if state.has_shell:
        state.run("mkdir -p " + " ".join(value(folder) for folder in folders))
    if state.is_final:
        shown = " ".join(folders).replace(OPEN, "$")
        message = f"VOLUME {shown}: an image is read-only, and nothing is mounted there by itself"
        state.report.lose(found.line, message, f"bind a folder: --bind MINE:{folders[0]}, or binds in recipe.toml")


def shell(state: StageState, found: Instruction) -> None:
    """Remember SHELL, for the shell forms that follow."""
    state.shell = found.words


def entrypoint(state: StageState, found: Instruction) -> None:
    """Remember ENTRYPOINT."""
    state.entrypoint = program(state, found)


def command(state: StageState, found: Instruction) -> None:
    """Remember CMD."""
    state.command = program(state, found)


def program(state: StageState, found: Instruction) -> tuple[str, ...]:
    """Return the words of CMD or ENTRYPOINT, with a shell for the shell form."""
    if found.is_json:
        return found.words
    return (*state.shell, found.text) if found.text else ()


def _lost(what: str, remedy: str) -> Callable[[StageState, Instruction], None]:
    def report(state: StageState, found: Instruction) -> None:
        if state.is_final:
            state.report.lose(found.line, f"{found.name} {found.text[:60]}: {what}", remedy)

    return report


def _health_check(state: StageState, found: Instruction) -> None:
    if state.is_final and found.words[0] != "NONE":
        message = f"HEALTHCHECK: {_KNOWN_ELSEWHERE}"
        state.report.lose(found.line, message, "check the program in the job script, or in a test of recipe.toml")


def _on_build(state: StageState, found: Instruction) -> None:
    if state.is_final:
        message = f"ONBUILD {found.text[:60]}: {_KNOWN_ELSEWHERE}; images built from this one do not run it"
        state.report.lose(found.line, message, "write the instruction in the files that build from this image")


SIMPLE: Mapping[str, Callable[[StageState, Instruction], None]] = {
    "ARG": arguments,
    "CMD": command,
    "ENTRYPOINT": entrypoint,
    "ENV": environment,
    "EXPOSE": _lost(
        "a cluster maps no ports; the program listens on the node's own", "let the user choose a free port"
    ),
    "HEALTHCHECK": _health_check,
    "LABEL": labels,
    "MAINTAINER": maintainer,
    "ONBUILD": _on_build,
    "SHELL": shell,
    "STOPSIGNAL": _lost(_KNOWN_ELSEWHERE, "have the scheduler send it: sbatch --signal"),
    "USER": user,
    "VOLUME": volumes,
    "WORKDIR": workdir,
}

"""Checks of recipes with a Dockerfile: what is refused, moving images and downloads, and the checks of scripts.

For the latter, each RUN becomes a `%post` section of its own, at its own line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from factory.recipes.definition.definition import Definition, Header, Section, Stage
from factory.recipes.dockerfile import parser, refused
from factory.recipes.dockerfile.context import Context, is_remote
from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.inside import UnusableError, read_inside
from factory.recipes.lint import data, host, languages, packages, quiet, recipe, shell
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem, ProblemError, Recipe

Check = Callable[[Subject], Iterator[Problem]]
# Those of definition files that apply: the shell is the same, the words around it are not.
CHECKS: tuple[Check, ...] = (
    *recipe.CHECKS,
    *host.FOLDER_CHECKS,
    *shell.CHECKS,
    *packages.CHECKS,
    *data.CHECKS,
    *languages.CHECKS,
    *quiet.CHECKS,
)
_WORDS = (
    ("write under %environment: export ", "write ENV "),
    ("%environment", "ENV"),
    ("end %post with ", "end the RUN with "),
    ("%post -c /bin/bash", 'SHELL ["/bin/bash", "-c"]'),
    ("%post", "RUN"),
    ("with %files", "with COPY"),
)
_HEREDOC_SHELLS = {"/bin/sh": "", "/bin/bash": "-c /bin/bash", "bash": "-c /bin/bash"}
_INDENT = re.compile(r"RUN\s+(?:--\S+\s+)*", re.IGNORECASE)


def read(folder: Path, name: str) -> tuple[Dockerfile, Definition, tuple[Problem, ...]]:
    """Return a recipe's Dockerfile, its commands as a definition, and the problems of its syntax."""
    dockerfile, problems = parser.scan_file(folder, name)
    text = ""
    if not problems:
        try:
            text = read_inside(folder, name).decode()
        except (UnusableError, OSError, UnicodeDecodeError):  # reported by scan_file
            text = ""
    return dockerfile, as_definition(dockerfile, text.splitlines()), problems


def as_definition(dockerfile: Dockerfile, lines: list[str]) -> Definition:
    """Return the commands of a Dockerfile as `%post` sections, and its ENV as `%environment`. lines: of the file."""
    stages = []
    for stage in dockerfile.stages:
        headers = (Header("Bootstrap", "docker", stage.line), Header("From", stage.base, stage.line))
        sections: list[Section] = []
        interpreter = ""
        for found in stage.instructions:
            if found.name == "SHELL":
                interpreter = _HEREDOC_SHELLS.get(found.words[0], f"-c {found.words[0]}")
            elif found.name == "RUN" and not found.is_json:
                sections.append(_section(found, interpreter, lines, dockerfile.escape))
            elif found.name == "ENV":
                text = "".join(f"export {pair.name}={pair.value}\n" for pair in found.pairs)
                sections.append(Section("environment", "", text, found.line - 1))
        stages.append(Stage(headers, tuple(sections), stage.line))
    return Definition(dockerfile.path, tuple(stages))


def problems_of(one: Recipe, dockerfile: Dockerfile, subject: Subject) -> Iterator[Problem]:
    """Yield the problems of a Dockerfile without syntax errors."""
    try:
        context = Context(one.folder, one.build.dockerfile)
    except ProblemError as error:
        yield replace(error.problem, rule="dockerfile")
        return
    for arch in one.build.arch:
        for problem in refused.problems(dockerfile, one.build.args, one.build.target, arch, context):
            if problem.place.path.name == "recipe.toml":
                yield replace(_about_arguments(problem, subject), rule="dockerfile")
            else:
                yield replace(problem, rule="dockerfile")
    yield from (replace(problem, rule="remote") for problem in _remote(dockerfile))


def reworded(problem: Problem) -> Problem:
    """Return a problem of a script in the words of Dockerfiles."""
    message, remedy = problem.message, problem.remedy
    for before, after in _WORDS:
        message, remedy = message.replace(before, after), remedy.replace(before, after)
    return replace(problem, message=message, remedy=remedy)


def _about_arguments(problem: Problem, subject: Subject) -> Problem:
    return subject.about_recipe(("build", "args"), problem.message, problem.remedy, warning=False)


def _remote(dockerfile: Dockerfile) -> Iterator[Problem]:
    for stage in dockerfile.stages:
        for found in stage.instructions:
            for source in found.words[:-1] if found.name == "ADD" else ():
                if is_remote(source):
                    message = f"ADD {source[:100]} is not verified and can change"
                    remedy = "download it with RUN curl, and check it with sha256sum -c"
                    yield Problem(dockerfile.at(found.line), message, remedy, warning=True)


def _section(found: Instruction, interpreter: str, lines: list[str], escape: str) -> Section:
    """Return RUN as a section. Its body has the lines of the file, where they are a script as they stand."""
    if found.here_documents:
        document = found.here_documents[0]
        if found.text.strip().startswith("<<"):
            return Section("post", interpreter, document.content, document.line - 1)
        bodies = "".join(f"{one.body}{one.name}\n" for one in found.here_documents)
        return Section("post", interpreter, f"{found.text}\n{bodies}", found.line - 1)
    raw = lines[found.line - 1 : found.last_line]
    if not raw or escape != "\\":
        return Section("post", interpreter, f"{found.text}\n", found.line - 1)
    first = _INDENT.sub("", raw[0].lstrip(), count=1)
    rest = ["\\" if not line.strip() or line.lstrip().startswith("#") else line for line in raw[1:]]
    return Section("post", interpreter, "".join(f"{line}\n" for line in (first, *rest)), found.line - 1)

"""`singfactory convert`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say_path, tell
from factory.errors import NotFound, PlaceUnusable, UsageError
from factory.io.files import create
from factory.recipes.dockerfile.parser import scan_file
from factory.recipes.dockerfile.source_tree import Tree
from factory.recipes.dockerfile.translate import Translation, translate
from factory.recipes.model import Problem, ProblemError

LOSSY = 10
"""The exit code of a definition that differs from its Dockerfile."""


@dataclass(frozen=True)
class ConvertOptions(CommonOptions):
    """Options of `singfactory convert`."""

    dockerfile: str
    output: str | None
    context: str | None
    target: str
    build_arg: Sequence[str]
    arch: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dockerfile", metavar="DOCKERFILE", help="the file to translate")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the definition to a new file, not to stdout")
    parser.add_argument("--context", metavar="FOLDER", help="what COPY copies from (default: the Dockerfile's folder)")
    parser.add_argument("--target", metavar="STAGE", default="", help="the stage to translate (default: the last)")
    parser.add_argument(
        "--build-arg", metavar="NAME=VALUE", action="append", default=[], help="the value of an ARG; can be repeated"
    )
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64", help="value of TARGETARCH")
    common_arguments(parser, ConvertOptions, json=True)


def run(options: ConvertOptions) -> int:
    """Print or write the definition; explain each loss on stderr. Returns LOSSY if there is one."""
    context = Context(options)
    translation = _translated(options)
    if options.output:
        with create(Path(options.output)) as file:
            file.write(translation.text.encode())
    if options.json:
        emit(_document(translation, options.output))
        return LOSSY if translation.losses else 0
    for problem in translation.losses:
        _explain(problem)
    for note in translation.notes:
        context.progress.note(f"{_shown(note)}: note: {note.message}")
    if options.output:
        say_path(Path(options.output))
    else:
        sys.stdout.write(translation.text)
    return LOSSY if translation.losses else 0


def _translated(options: ConvertOptions) -> Translation:
    """Read and translate the Dockerfile; show all of its mistakes but the first, which is raised."""
    path = Path(options.dockerfile)
    if options.output and os.path.lexists(options.output):
        raise PlaceUnusable(f"{options.output} is in the way", why="it exists", fix="name another file, or move it")
    if not path.is_file():
        raise NotFound(f"there is no file {path}", fix="name the Dockerfile: singfactory convert path/to/Dockerfile")
    folder = Path(options.context) if options.context else path.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", fix="name the build context: --context FOLDER")
    dockerfile, problems = scan_file(path.parent, path.name)
    if problems:
        for problem in problems[1:]:
            _explain(problem)
        raise ProblemError(problems[0])
    args = build_arguments(options.build_arg)
    return translate(dockerfile, Tree(folder, path.name), args, target=options.target, arch=options.arch)


def build_arguments(texts: Sequence[str]) -> dict[str, str]:
    """Parse the values of --build-arg. Raises UsageError."""
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise UsageError(f"--build-arg {text}: not NAME=VALUE", fix="write --build-arg VERSION=1.2")
    return dict(text.split("=", 1) for text in texts)


def _explain(problem: Problem) -> None:
    tell(f"{_shown(problem)}: {'lost' if problem.warning else 'error'}: {problem.message}")
    tell(f"    {problem.remedy}")


def _shown(problem: Problem) -> str:
    path = problem.place.path
    with contextlib.suppress(ValueError):
        path = path.absolute().relative_to(Path.cwd())
    return f"{path}:{problem.place.line}" if problem.place.line else str(path)


def _document(translation: Translation, output: str | None) -> dict[str, object]:
    def listed(problems: Sequence[Problem]) -> list[dict[str, object]]:
        return [
            {
                "file": str(problem.place.path),
                "line": problem.place.line,
                "message": problem.message,
                "remedy": problem.remedy,
            }
            for problem in problems
        ]

    return {
        "definition": translation.text,
        "output": output,
        "exact": not translation.losses,
        "losses": listed(translation.losses),
        "notes": listed(translation.notes),
    }

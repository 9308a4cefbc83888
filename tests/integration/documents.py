"""Runs the command blocks of README.md and docs/*.md, as sybil finds them in Markdown.

A block marked ``sh`` holds commands. A block marked ``console`` holds commands after ``$ `` and the output of each
below it: ``…`` stands for anything within a line (digests, times, sizes), and a line ``…`` for any number of lines. A
block that needs what no test has is preceded by sybil's own marker, ``<!-- skip: next "needs GitHub" -->``; the summary
of a test run counts these.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from tests.factory_project import ROOT, Project

DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_LIMIT = 300  # seconds; against hanging
# What Apptainer says of optional programs that a machine lacks: no document can know that.
_ENGINE_LACKS = re.compile(r"^INFO: +\S+ not found, will not be able to .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Reader:
    """Somebody who types what a document says. replaced: names in the text that stand for the reader's own."""

    project: Project
    replaced: Mapping[str, str]

    def types(self, commands: str) -> str:
        """Run the commands in one shell; returns all that they print, with the reader's own names put back."""
        for name, own in self.replaced.items():
            commands = commands.replace(name, own)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.project.folder,
            env=self.project.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        output = _ENGINE_LACKS.sub("", done.stdout)
        for name, own in self.replaced.items():
            output = output.replace(own, name)
        if done.returncode != 0 or "Traceback" in output:
            raise AssertionError(f"exit code {done.returncode} of:\n{commands}\n{output}")
        return output


@dataclass(frozen=True)
class Block:
    """One command block. skipped: why it cannot be run by a test, or nothing."""

    example: Example
    skipped: str

    @property
    def name(self) -> str:
        return f"{Path(self.example.path).relative_to(ROOT)}:{self.example.line}"


def blocks(document: Path) -> Iterator[Block]:
    """Every command block of a document, in order."""
    skipped = ""
    for example in _SYBIL.parse(document).examples():
        if isinstance(example.region.evaluator, Skipper):
            action, reason = example.parsed
            if action != "next" or not reason:
                raise ValueError(f'{document.name}:{example.line}: write <!-- skip: next "why" -->')
            skipped = str(ast.literal_eval(reason))
        else:
            yield Block(example, skipped)
            skipped = ""


def _run(example: Example) -> None:
    example.namespace["reader"].types(str(example.parsed))


def _run_and_compare(example: Example) -> str | None:
    reader: Reader = example.namespace["reader"]
    told = list(sessions(str(example.parsed)))
    # One shell for all of them: what is exported by one is there for the next.
    printed_by_each = reader.types("\nprintf '\\001\\n'\n".join(command for command, _ in told)).split("\1\n")
    for (command, expected), printed in zip(told, printed_by_each, strict=True):
        if not matches(expected, printed):
            return f"$ {command}\nis documented to print:\n{expected}\nand prints:\n{printed}"
    return None


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and its output. A command goes on after a line that ends with a backslash."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


def matches(expected: str, printed: str) -> bool:
    """Whether printed is what is expected, but for its placeholders and blanks at the ends of lines."""
    lines = []
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.fullmatch("".join(lines), printed.strip() + "\n" if printed.strip() else "") is not None


_SYBIL = Sybil(
    parsers=[
        SkipParser(),
        CodeBlockParser(language="sh", evaluator=_run),
        CodeBlockParser(language="console", evaluator=_run_and_compare),
    ]
)

"""Run the command blocks and load the TOML blocks of README.md and docs/*.md. sybil finds them in the Markdown.

- ``sh``: commands, which must succeed.
- ``console``: commands after ``$ `` and the output of each below it. ``…`` stands for any text within a line, a line
  ``…`` for any number of lines. A size (``1.8 MB``) matches any size, a duration (``12.5 s``) any duration.
- ``toml``: a recipe.toml, a lock file or a settings file. The program's own loader must accept it.

A block that needs something that no test has is preceded by sybil's marker, ``<!-- skip: next "needs GitHub" -->``. The
summary of a test run counts these.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from factory.cli import settings
from factory.recipes.load import check_recipe
from factory.records import lockfile
from tests.factory_project import ROOT, Project

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FIRST_DAY = ROOT / "docs/first-day.md"  # needs a cluster: test_first_day.py
_LIMIT = 300  # seconds; against hanging
# Apptainer's notices about optional programs: which ones are missing depends on the machine.
_ENGINE_LACKS = re.compile(r"^INFO: +\S+ not found, will not be able to .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Reader:
    """A reader who types what a document says. replaced: names in the text, and what they are in this test."""

    project: Project
    replaced: Mapping[str, str]

    def types(self, commands: str) -> str:
        """Run the commands in one shell; return their output, with the document's names put back.

        As in a reader's terminal, what one block exports counts in the blocks after it.
        """
        for name, own in self.replaced.items():
            commands = commands.replace(name, own)
        exported = self.project.folder / "exported"
        exported.touch()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f". {exported}\n{commands}\nexport -p >{exported}"],
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
    """One block. skipped: why a test cannot run it, or ''."""

    example: Example
    skipped: str

    @property
    def name(self) -> str:
        return f"{Path(self.example.path).relative_to(ROOT)}:{self.example.line}"

    @property
    def is_toml(self) -> bool:
        return self.example.region.evaluator is _load


def blocks(document: Path) -> Iterator[Block]:
    """Yield every block of a document that is run or loaded, in order."""
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
    documented = list(sessions(str(example.parsed)))
    # One shell for the whole block, so that an export counts for the commands after it.
    printed_by_each = reader.types("\nprintf '\\001\\n'\n".join(command for command, _ in documented)).split("\1\n")
    for (command, expected), printed in zip(documented, printed_by_each, strict=True):
        if not matches(expected, printed):
            return f"$ {command}\nis documented to print:\n{expected}\nand prints:\n{printed}"
    return None


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block and its output. A backslash at the end of a line continues a command."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
        yield "\n".join(lines[:end]), "\n".join(lines[end:])


def matches(expected: str, printed: str) -> bool:
    """Return whether printed is the expected text, apart from placeholders, sizes, durations and trailing blanks."""
    lines = []
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*?".join(_pattern(part) for part in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.fullmatch("".join(lines), printed.strip() + "\n" if printed.strip() else "") is not None


_SIZE, _DURATION = r"\b\d+(?:\.\d+)? (?:B|kB|MB|GB)\b", r"\b\d+(?:\.\d+)? s\b"


def _pattern(text: str) -> str:
    """A regular expression for text in which sizes and durations may have other values."""
    parts = re.split(f"({_SIZE}|{_DURATION})", text)  # every second one is a size or a duration
    values = (_DURATION if part.endswith(" s") else _SIZE for part in parts[1::2])
    return "".join(re.escape(part) + next(values, "") for part in parts[::2])


def _load(example: Example) -> None:
    """Load a TOML block with the loader for its kind of file, which its tables show."""
    text = str(example.parsed)
    tables = tomllib.loads(text)
    if "image" in tables:
        lockfile.parse(text.replace("sha256:…", f"sha256:{'0' * 64}").encode(), "singfactory.lock")
        return
    folder = example.namespace["scratch"]
    if set(tables) <= {"recipe", "build", "run", "test", "rebuild", "quiet", "checks", "lifecycle", "project"}:
        _load_recipe(text, folder / tables.get("recipe", {}).get("name", "example"))
        return
    path = folder / ".config/singfactory/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    env = {"HOME": str(folder), "SCRATCH": "/scratch/ada", "USER": "ada"}
    found = settings.load({}, env, folder)
    # The mirrors of each host are a setting of their own: mirrors.docker.io.
    assert {name.partition(".")[0] for name, value in found.values.items() if value.origin == str(path)} == set(tables)


def _load_recipe(text: str, folder: Path) -> None:
    """Load a recipe.toml, or a part of one: the tables that it leaves out are added."""
    head = "" if "[recipe]" in text else '[recipe]\nname = "example"\nversion = "1.0"\nsummary = "an example"\n'
    folder.mkdir()
    (folder / "recipe.toml").write_text(head + text, encoding="utf-8")
    (folder / "image.def").touch()
    (folder / "Dockerfile").write_text("FROM scratch AS runtime\nARG VERSION\n", encoding="utf-8")
    recipe, problems = check_recipe(folder)
    assert recipe, problems
    assert not problems


_SYBIL = Sybil(
    parsers=[
        SkipParser(),
        CodeBlockParser(language="sh", evaluator=_run),
        CodeBlockParser(language="console", evaluator=_run_and_compare),
        CodeBlockParser(language="toml", evaluator=_load),
    ]
)

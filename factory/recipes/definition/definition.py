"""Apptainer definition files as values: stages, headers and sections.

The parser is in `factory.recipes.definition.parser`. Format: the Apptainer user guide, "Definition Files",
and Apptainer's parser (pkg/build/types/parser/deffile.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from factory.recipes.definition import templates
from factory.recipes.definition.copies import Copy, parse_copy
from factory.recipes.model import Place, Problem, ProblemError

# Apptainer splits a file into stages before anything else, so this pattern, which is its own, also matches inside
# of section bodies. Case is ignored as in Unicode.
_LONGEST = 1_000_000
_SCANNED = 64 * 1024  # bytes (bufio.MaxScanTokenSize in Go)
_SHORTER = {
    "the header": "list fewer packages under Include:, and install the others in %post",
    "%files": "copy whole folders, or begin a second %files section",
    "": "begin a second section of this name, which the engine appends to it, or copy scripts in with %files",
}
STAGE_START = re.compile(r"bootstrap:", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """`Key: value`, with the key in Apptainer's spelling."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """`%name args` and the lines below it. The body is verbatim and, unless empty, ends with a newline."""

    name: str
    args: str
    body: str
    line: int

    def lines(self) -> Iterator[tuple[int, str]]:
        """Return the body's lines with their line numbers in the file."""
        return enumerate(self.body.split("\n")[:-1], start=self.line + 1)

    @property
    def source_stage(self) -> str:
        """The stage in `%files from STAGE`, otherwise ''."""
        return self.args.removeprefix("from ") if self.name == "files" and self.args else ""

    def copies(self) -> tuple[Copy, ...]:
        """Return the entries of a `%files` section."""
        read = (parse_copy(text, line) for line, text in self.lines())
        return tuple(copy for copy in read if isinstance(copy, Copy))


@dataclass(frozen=True)
class Stage:
    """The headers and sections from one `Bootstrap:` line to the next."""

    headers: tuple[Header, ...]
    sections: tuple[Section, ...]
    line: int

    def header(self, key: str) -> Header | None:
        """Return the header with this key, upper or lower case."""
        return next((header for header in self.headers if header.key.lower() == key.lower()), None)

    def value(self, key: str) -> str:
        """Return the value of the header with this key, '' if there is none."""
        header = self.header(key)
        return header.value if header else ""

    def named(self, name: str) -> tuple[Section, ...]:
        """Return all sections with this name. Apptainer concatenates repeated sections."""
        return tuple(section for section in self.sections if section.name == name)

    def pieces(self) -> tuple[tuple[str, int, str], ...]:
        """Return the parts that the engine reads one at a time: name, line and text of the headers and each section."""
        headers = "".join(f"{header.key}: {header.value}".rstrip() + "\n" for header in self.headers)
        sections = (
            (f"%{section.name}", section.line, f"%{section.name} {section.args}".rstrip() + "\n" + section.body)
            for section in self.sections
        )
        return ("the header", self.line, headers + "\n"), *sections

    def defaults(self) -> dict[str, str]:
        """Return the defaults in `%arguments`; the last value of a name counts."""
        found: dict[str, str] = {}
        for section in self.named("arguments"):
            for _, text in section.lines():
                name, equals, value = text.partition("=")
                if equals and not text.lstrip().startswith("#"):
                    found[name.strip()] = value.strip()
        return found


@dataclass(frozen=True)
class Use:
    """A use of `{{ name }}`. defined: the stage's `%arguments` has a default for it."""

    name: str
    line: int
    defined: bool


@dataclass(frozen=True)
class Definition:
    """A definition file. path: the file it was read from, for messages."""

    path: Path
    stages: tuple[Stage, ...]

    def variables(self) -> tuple[Use, ...]:
        """Return every use of `{{ name }}` outside of comments, in the file's order."""
        found = []
        for stage in self.stages:
            defaults = stage.defaults()
            pieces = [(header.line, header.value) for header in stage.headers]
            for section in stage.sections:
                pieces.append((section.line, section.args))
                pieces.extend(section.lines())
            found += [Use(name, line, name in defaults) for line, text in pieces for name in templates.uses(text)]
        return tuple(found)

    def bind(self, values: Mapping[str, str]) -> Definition:
        """Return the definition with all arguments replaced and `%arguments` removed; line numbers stay.

        values take precedence over the defaults in `%arguments`, which apply only to their own stage.
        Raises ProblemError, with file and line, for an argument without a value, for a value that would begin a
        section, a header or a stage, and if the values make the text too long. The result may still parse as
        something else: use parser.bind for text that is passed to the engine.
        """
        budget = [_LONGEST]  # characters left for the whole file
        return replace(self, stages=tuple(self._bound(stage, values, budget) for stage in self.stages))

    def text(self) -> str:
        """Return the file's text: headers and section lines in canonical form, bodies verbatim."""
        return "".join(text for stage in self.stages for _, _, text in stage.pieces())

    def too_long(self) -> Problem | None:
        """Return the problem of the first part that is too long for the engine, None if it can read the text.

        Apptainer's scanner holds 64 KiB: a section, and the whole line after it, by which it finds the section's end.
        """
        for stage in self.stages:
            pieces = stage.pieces()
            followers = (*(text for _, _, text in pieces[1:]), "")
            for (name, line, text), following in zip(pieces, followers):
                size = len(text.encode())
                limit = _SCANNED - len(following.partition("\n")[0].encode()) - 1
                if size > limit:
                    message = f"{name} has {size} bytes, and the engine reads at most {limit} at once"
                    return Problem(Place(self.path, line), message, _SHORTER.get(name, _SHORTER[""]))
        return None

    def with_headers(self, stage_index: int, values: Mapping[str, str | None]) -> Definition:
        """Return the definition with headers of a stage replaced or added; None removes one. The order is kept."""
        stage = self.stages[stage_index]
        changes = {key.lower(): (key, value) for key, value in values.items()}
        headers = []
        for header in stage.headers:
            _, value = changes.pop(header.key.lower(), (header.key, header.value))
            if value is not None:
                headers.append(replace(header, value=value))
        headers += [Header(key, value, stage.line) for key, value in changes.values() if value is not None]
        return self._with_stage(stage_index, replace(stage, headers=tuple(headers)))

    def same_as(self, other: Definition) -> bool:
        """Return whether both have the same content; paths and line numbers do not count."""
        return _shape(self) == _shape(other)

    def _with_stage(self, index: int, stage: Stage) -> Definition:
        stages = list(self.stages)
        stages[index] = stage
        return replace(self, stages=tuple(stages))

    def _bound(self, stage: Stage, given: Mapping[str, str], budget: list[int]) -> Stage:
        values = templates.expanded({**stage.defaults(), **given}, Place(self.path, stage.line))

        def put(text: str, line: int) -> str:
            place = Place(self.path, line)
            replaced = templates.substitute(text, values, place)
            budget[0] -= len(replaced)
            if budget[0] < 0:
                raise ProblemError(
                    Problem(
                        place,
                        f"with its arguments replaced, the file has more than {_LONGEST} characters",
                        "copy large texts into the image with %files",
                    )
                )
            if replaced != text and begins_structure(replaced):
                raise ProblemError(
                    Problem(
                        place,
                        f"an argument's value begins a section or a stage here: {templates.shown(replaced)}",
                        "write sections and headers in the definition file, not in arguments",
                    )
                )
            return replaced

        headers = (replace(header, value=put(header.value, header.line)) for header in stage.headers)
        sections = (
            replace(
                section,
                args=put(section.args, section.line),
                body="".join(f"{put(text, line)}\n" for line, text in section.lines()),
            )
            for section in stage.sections
            if section.name != "arguments"
        )
        return replace(stage, headers=tuple(headers), sections=tuple(sections))


def begins_structure(line: str) -> bool:
    """Return whether Apptainer takes a line for the beginning of a section or a stage, even inside of a body."""
    return line.lstrip().startswith("%") or STAGE_START.match(line) is not None


def _shape(definition: Definition) -> list[object]:
    return [
        (
            [(header.key, header.value) for header in stage.headers],
            [(section.name, section.args, section.body) for section in stage.sections],
        )
        for stage in definition.stages
    ]

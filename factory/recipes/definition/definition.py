"""Apptainer definition files as values: stages, headers, sections, and what the factory changes in them.

Reading is in `factory.recipes.definition.parser`. Format: the Apptainer user guide, "Definition Files",
and its parser (pkg/build/types/parser/deffile.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from factory.recipes.definition import templates
from factory.recipes.definition.copies import Copy, parse_copy
from factory.recipes.model import Place, Problem, ProblemError

# Apptainer splits a file into stages before it looks at anything else, so this counts inside of bodies
# too. The pattern is its own; letters fold as Unicode has it.
_LONGEST = 1_000_000
STAGE_START = re.compile(r"bootstrap:", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """`Key: value`; the key has Apptainer's own spelling, whatever the file used."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """`%name args` and the lines below it; body is verbatim and, unless empty, ends with a newline."""

    name: str
    args: str
    body: str
    line: int

    def lines(self) -> Iterator[tuple[int, str]]:
        """The body's lines with their line numbers in the file."""
        return enumerate(self.body.split("\n")[:-1], start=self.line + 1)

    @property
    def source_stage(self) -> str:
        """Of `%files from STAGE`, the stage; '' otherwise."""
        return self.args.removeprefix("from ") if self.name == "files" and self.args else ""

    def copies(self) -> tuple[Copy, ...]:
        """The entries of a `%files` section."""
        read = (parse_copy(text, line) for line, text in self.lines())
        return tuple(copy for copy in read if isinstance(copy, Copy))


@dataclass(frozen=True)
class Stage:
    """One `Bootstrap:` header and everything up to the next."""

    headers: tuple[Header, ...]
    sections: tuple[Section, ...]
    line: int

    def header(self, key: str) -> Header | None:
        """The header of that key, in any spelling."""
        return next((header for header in self.headers if header.key.lower() == key.lower()), None)

    def value(self, key: str) -> str:
        """The value of that header, '' when there is none."""
        header = self.header(key)
        return header.value if header else ""

    def named(self, name: str) -> tuple[Section, ...]:
        """All sections of a name; Apptainer appends repeated ones to each other."""
        return tuple(section for section in self.sections if section.name == name)

    def defaults(self) -> dict[str, str]:
        """What `%arguments` says; a name's last value counts."""
        found: dict[str, str] = {}
        for section in self.named("arguments"):
            for _, text in section.lines():
                name, equals, value = text.partition("=")
                if equals and not text.lstrip().startswith("#"):
                    found[name.strip()] = value.strip()
        return found


@dataclass(frozen=True)
class Use:
    """A `{{ name }}`. defined: the stage's `%arguments` has a default for it."""

    name: str
    line: int
    defined: bool


@dataclass(frozen=True)
class Definition:
    """A definition file. path is where it was read, for messages."""

    path: Path
    stages: tuple[Stage, ...]

    def variables(self) -> tuple[Use, ...]:
        """Every `{{ name }}` outside of comments, in the file's order."""
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
        """The definition with all arguments replaced and `%arguments` gone; line numbers stay.

        values take precedence over the defaults in `%arguments`, which count for their own stage only.
        Raises ProblemError, naming file and line, for an argument without a value, for a value that would begin a
        section, a header or a stage, and where the values make the text very long. What this gives may still read
        back as something else: definition_parser.bind is for what the engine is handed.
        """
        room = [_LONGEST]  # characters that are left for the whole file
        return replace(self, stages=tuple(self._bound(stage, values, room) for stage in self.stages))

    def text(self) -> str:
        """The file: headers and section lines in their canonical form, bodies verbatim."""
        lines: list[str] = []
        for stage in self.stages:
            lines += [f"{header.key}: {header.value}".rstrip() + "\n" for header in stage.headers]
            lines.append("\n")
            lines += [f"%{section.name} {section.args}".rstrip() + "\n" + section.body for section in stage.sections]
        return "".join(lines)

    def with_headers(self, stage_index: int, values: Mapping[str, str | None]) -> Definition:
        """Replace or add headers of a stage; None removes one. The others keep their places."""
        stage = self.stages[stage_index]
        wanted = {key.lower(): (key, value) for key, value in values.items()}
        headers = []
        for header in stage.headers:
            _, value = wanted.pop(header.key.lower(), (header.key, header.value))
            if value is not None:
                headers.append(replace(header, value=value))
        headers += [Header(key, value, stage.line) for key, value in wanted.values() if value is not None]
        return self._with_stage(stage_index, replace(stage, headers=tuple(headers)))

    def same_as(self, other: Definition) -> bool:
        """Whether both say the same, wherever in a file it stands."""
        return _shape(self) == _shape(other)

    def _with_stage(self, index: int, stage: Stage) -> Definition:
        stages = list(self.stages)
        stages[index] = stage
        return replace(self, stages=tuple(stages))

    def _bound(self, stage: Stage, given: Mapping[str, str], room: list[int]) -> Stage:
        values = templates.expanded({**stage.defaults(), **given}, Place(self.path, stage.line))

        def put(text: str, line: int) -> str:
            place = Place(self.path, line)
            replaced = templates.substitute(text, values, place)
            room[0] -= len(replaced)
            if room[0] < 0:
                raise ProblemError(
                    Problem(
                        place,
                        f"with its arguments replaced, the file has more than {_LONGEST} characters",
                        "bring large texts in with %files",
                    )
                )
            if replaced != text and begins_structure(replaced):
                raise ProblemError(
                    Problem(
                        place,
                        f"an argument's value begins a section or a stage here: {templates.shown(replaced)}",
                        "write sections and headers in the file itself",
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
    """Whether Apptainer takes a line for the beginning of a section or a stage, in whatever body it stands."""
    return line.lstrip().startswith("%") or STAGE_START.match(line) is not None


def _shape(definition: Definition) -> list[object]:
    return [
        (
            [(header.key, header.value) for header in stage.headers],
            [(section.name, section.args, section.body) for section in stage.sections],
        )
        for stage in definition.stages
    ]

"""Dockerfiles as values: directives, global arguments, stages and their instructions.

The parser is in `factory.recipes.dockerfile.parser`. Format: Docker's "Dockerfile reference", and BuildKit's parser
(frontend/dockerfile/parser and instructions), which decides where the reference says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from factory.recipes.model import Place

_TABS = re.compile(r"^\t+", re.MULTILINE)


@dataclass(frozen=True)
class Directive:
    """A parser directive, such as ``# syntax=docker/dockerfile:1``. The name is in lower case."""

    name: str
    value: str
    line: int


@dataclass(frozen=True)
class HereDocument:
    """A here-document of RUN, COPY or ADD.

    body: its lines as written, each with its line break. expands: the delimiter is not quoted. strips_tabs: of
    ``<<-``. line: of the first line of the body.
    """

    name: str
    body: str
    expands: bool
    strips_tabs: bool
    line: int

    @property
    def content(self) -> str:
        """The body without leading tabs if the operator is ``<<-``."""
        return _TABS.sub("", self.body) if self.strips_tabs else self.body


@dataclass(frozen=True)
class Flag:
    """``--name=value`` between the instruction's name and its arguments. value: None for a bare ``--name``."""

    name: str
    value: str | None


@dataclass(frozen=True)
class Pair:
    """A name and its value, of ARG, ENV or LABEL, both before expansion. value: None for ``ARG name``."""

    name: str
    value: str | None


@dataclass(frozen=True)
class Instruction:
    """One instruction. name: in upper case. line, last_line: of the file, here-documents included.

    text: the arguments on one line, after continuations and flags. words: the arguments of instructions that are lists
    (ADD, COPY, EXPOSE, FROM, VOLUME), and the elements of a JSON array. HEALTHCHECK has NONE or CMD as its first word,
    and its command in text or in the other words. is_json: the arguments are a JSON array ("exec form").
    pairs: of ARG, ENV and LABEL. trigger: the instruction after ONBUILD.
    """

    name: str
    line: int
    last_line: int
    text: str
    flags: tuple[Flag, ...] = ()
    words: tuple[str, ...] = ()
    is_json: bool = False
    pairs: tuple[Pair, ...] = ()
    here_documents: tuple[HereDocument, ...] = ()
    trigger: Instruction | None = None

    def flag(self, name: str) -> str | None:
        """Return the value of a flag, '' for a bare one, None if it is not given."""
        return next(((flag.value or "") for flag in self.flags if flag.name == name), None)

    def all_flags(self, name: str) -> tuple[str, ...]:
        """Return the values of a flag that can be repeated, such as ``--mount``."""
        return tuple(flag.value or "" for flag in self.flags if flag.name == name)

    def is_set(self, name: str) -> bool:
        """Return whether a yes-or-no flag, such as ``--link``, is on."""
        value = self.flag(name)
        return value is not None and value.lower() != "false"


@dataclass(frozen=True)
class Stage:
    """The instructions from one FROM to the next.

    name: after AS, in lower case, '' if there is none. base, platform: as written, before expansion. line: of FROM.
    """

    index: int
    name: str
    base: str
    platform: str
    line: int
    instructions: tuple[Instruction, ...]

    def __str__(self) -> str:
        return self.name or str(self.index)


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile. path: for messages. arguments: the ARG instructions before the first FROM."""

    path: Path
    escape: str
    directives: tuple[Directive, ...]
    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]

    def at(self, line: int) -> Place:
        """Return a line of this file for a message."""
        return Place(self.path, line)

    def stage_named(self, name: str, before: int | None = None) -> Stage | None:
        """Return the last stage with this name, in any case; before: among the stages before this index."""
        stages = self.stages if before is None else self.stages[:before]
        return next((stage for stage in reversed(stages) if stage.name and stage.name == name.lower()), None)

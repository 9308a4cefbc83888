"""Parse Dockerfiles as Docker does, and report every problem with its line.

Specification: Docker's "Dockerfile reference"; where it says nothing, BuildKit's frontend/dockerfile/parser. Stricter
than Docker: the file is UTF-8 text without control characters or characters that change the direction of text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.recipes.characters import described, find_unprintable
from factory.recipes.dockerfile.instructions import SyntaxProblem, here_documents_of, instruction, stage_of
from factory.recipes.dockerfile.model import Directive, Dockerfile, HereDocument, Instruction, Stage
from factory.recipes.inside import UnusableError, read_inside
from factory.recipes.model import Place, Problem, ProblemError

ESCAPE = "\\"
_BYTE_ORDER_MARK = "\ufeff"
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)", re.ASCII)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # with its line break, which is part of a here-document's text
_DIRECTIVES = ("syntax", "escape", "check")
_LONGEST_LINE = 64 * 1024 - 1  # bytes; bufio.MaxScanTokenSize in Go
_MOST_INSTRUCTIONS = 2000
_MOST_STAGES = 100
_MOST_PROBLEMS = 100


def read(folder: Path, relative: str) -> Dockerfile:
    """Read and parse a Dockerfile in a folder, which it may not leave. Raises ProblemError with the first problem."""
    return _sound(*scan_file(folder, relative))


def parse(text: str, path: Path) -> Dockerfile:
    """Parse a Dockerfile's text; path is for messages. Raises ProblemError with the first problem."""
    return _sound(*scan(text, path))


def scan_file(folder: Path, relative: str) -> tuple[Dockerfile, tuple[Problem, ...]]:
    """Scan a file in a folder; a file that cannot be read is a problem too."""
    path = folder / relative
    content = b""
    try:
        content = read_inside(folder, relative)
        text = content.decode("utf-8")
    except FileNotFoundError:
        problem = Problem(Place(path), "there is no such file", "create the Dockerfile, or correct its name")
    except UnusableError as error:
        problem = Problem(Place(path), f"{relative} {error}", "put the Dockerfile there as an ordinary file")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem(Place(path, line), "the file is not UTF-8", "save it as UTF-8 text")
    else:
        return scan(text, path)
    return Dockerfile(path, ESCAPE, (), (), ()), (problem,)


def scan(text: str, path: Path) -> tuple[Dockerfile, tuple[Problem, ...]]:
    """Parse a Dockerfile's text. Return what was understood, and every problem in the file's order."""
    parser = _Parser(text, path)
    dockerfile = parser.dockerfile()
    return dockerfile, tuple(sorted(parser.problems, key=lambda problem: problem.place.line))


def _sound(dockerfile: Dockerfile, problems: Sequence[Problem]) -> Dockerfile:
    if problems:
        raise ProblemError(problems[0], more=len(problems) - 1, see="singfactory convert")
    return dockerfile


class _Parser:
    """Reads the lines of a file once, from the first to the last."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self.problems: list[Problem] = []
        self._check_characters(text)
        self._lines: list[str] = _LINE.findall(text.removeprefix(_BYTE_ORDER_MARK))
        self._at = 0
        self._escape = ESCAPE

    def _complain(self, line: int, message: str, remedy: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(Place(self._path, line), message, remedy))

    def _check_characters(self, text: str) -> None:
        at = find_unprintable(text)
        if at is not None:
            line = text.count("\n", 0, at) + 1
            message = f"the line contains {described(text[at])}, which editors do not show"
            self._complain(line, message, "remove it; a script can produce it with printf, as in \\033")

    def dockerfile(self) -> Dockerfile:
        """Parse everything."""
        directives = self._directives()
        instructions: list[Instruction] = []
        while (found := self._logical_line()) is not None:
            line, text = found
            try:
                instructions.append(self._instruction(line, text))
            except SyntaxProblem as error:
                self._complain(line, str(error), error.remedy)
            if len(instructions) > _MOST_INSTRUCTIONS:
                self._complain(line, f"there are more than {_MOST_INSTRUCTIONS} instructions", "write a shorter file")
                break
        arguments, stages = self._stages(instructions)
        return Dockerfile(self._path, self._escape, directives, arguments, stages)

    def _directives(self) -> tuple[Directive, ...]:
        """Read the comments at the top that are parser directives. They end at the first line that is none."""
        found: dict[str, Directive] = {}
        for number, text in enumerate(self._lines, start=1):
            match = _DIRECTIVE.fullmatch(text.strip())
            name = match[1].lower() if match else ""
            if match is None or name not in _DIRECTIVES:
                break
            if name in found:
                self._complain(number, f"the directive {name} occurs twice", "remove one of the two")
                continue
            found[name] = Directive(name, match[2], number)
            if name == "escape":
                if match[2] in ("\\", "`"):
                    self._escape = match[2]
                else:
                    self._complain(number, "the escape character is neither \\ nor `", "write # escape=` or remove it")
        return tuple(found.values())

    def _logical_line(self) -> tuple[int, str] | None:
        """Return the next instruction's first line and its text with continuations joined; None at the end."""
        escape = re.escape(self._escape)
        continued = re.compile(rf"(?:(?<=[^{escape}])|^){escape}[ \t]*\Z")
        while self._at < len(self._lines):
            first = self._at + 1
            text = self._physical_line().lstrip()
            if text.startswith("#"):
                continue
            parts: list[str] = []
            following: str | None = text
            while following is not None:
                match = continued.search(following)
                parts.append(following[: match.start()] if match else following)
                following = self._continuation() if match else None
            joined = "".join(parts)
            if joined.strip():
                return first, joined
        return None

    def _continuation(self) -> str | None:
        """Return the next line that is neither empty nor a comment, None at the end of the file."""
        while self._at < len(self._lines):
            text = self._physical_line()
            if text.strip() and not text.lstrip().startswith("#"):
                return text
        return None

    def _physical_line(self) -> str:
        self._at += 1
        text = self._lines[self._at - 1].rstrip("\r\n")
        if len(text) > _LONGEST_LINE or len(text.encode()) > _LONGEST_LINE:
            self._complain(self._at, f"the line has more than {_LONGEST_LINE} bytes", "use several lines, or a file")
            return text[:100]
        return text

    def _instruction(self, line: int, text: str) -> Instruction:
        found = instruction(text, line, self._escape)
        documents = tuple(self._here_document(document, line) for document in here_documents_of(found, text))
        if found.trigger is not None:
            found = replace(found, trigger=replace(found.trigger, here_documents=documents))
        else:
            found = replace(found, here_documents=documents)
        return replace(found, last_line=self._at)

    def _here_document(self, document: HereDocument, line: int) -> HereDocument:
        """Read the lines of a here-document up to its delimiter."""
        start = self._at
        for index in range(start, len(self._lines)):
            text = self._lines[index].rstrip("\r\n")
            if (text.lstrip("\t") if document.strips_tabs else text) == document.name:
                self._at = index + 1
                return replace(document, body="".join(self._lines[start:index]), line=start + 1)
        self._at = len(self._lines)
        where = f"the here-document <<{document.name} of line {line} has no end"
        raise SyntaxProblem(where, f"write {document.name} on a line of its own after its text")

    def _stages(self, instructions: Sequence[Instruction]) -> tuple[tuple[Instruction, ...], tuple[Stage, ...]]:
        arguments: list[Instruction] = []
        stages: list[tuple[Stage, list[Instruction]]] = []
        for found in instructions:
            if found.name == "FROM":
                stages.append((stage_of(found, len(stages)), []))
            elif stages:
                stages[-1][1].append(found)
            elif found.name == "ARG":
                arguments.append(found)
            else:
                self._complain(found.line, f"{found.name} is above the first FROM", "move it below FROM")
        if len(stages) > _MOST_STAGES:
            line = stages[_MOST_STAGES][0].line
            self._complain(line, f"the file has {len(stages)} stages", f"keep at most {_MOST_STAGES}")
        if not stages and not self.problems:
            self._complain(0 if not instructions else 1, "there is no FROM", "begin the first stage with FROM IMAGE")
        filled = (replace(stage, instructions=tuple(found)) for stage, found in stages[:_MOST_STAGES])
        return tuple(arguments), tuple(filled)

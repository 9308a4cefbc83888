"""Read an Apptainer definition file, line by line, and find everything that is wrong with it.

It follows Apptainer 1.4 (pkg/build/types/parser/deffile.go) and is stricter where Apptainer guesses:
headers twice or continued with a backslash, `%files` lines of three words, text before the first header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from factory.recipes.copies import parse_copy
from factory.recipes.definition import STAGE_START, Definition, Header, Section, Stage
from factory.recipes.model import Place, Problem, ProblemError
from factory.recipes.templates import TEMPLATE, shown

SECTIONS = frozenset(
    {"help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "test", "startscript", "arguments"}
)
APP_SECTIONS = frozenset({"appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart"})
HEADERS = (
    *("Bootstrap", "From", "IncludeCmd", "MirrorURL", "UpdateURL", "OSVersion", "Include", "Library", "Registry"),
    *("Namespace", "Stage", "Product", "User", "Regcode", "ProductPGP", "RegisterURL", "Modules", "Fingerprints"),
    *("ConfURL", "SetOpt"),
)
_SPELLING = {key.lower(): key for key in HEADERS}
_OTHER_URL = re.compile(r"otherurl[0-9]+", re.ASCII)
_APP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_ARGUMENT = re.compile(r"\s*\w+\s*=.*", re.ASCII)

_Lines = list[tuple[int, str]]


def read(path: Path) -> Definition:
    """Read and parse a definition file. Raises ProblemError with the first problem, naming file and line."""
    definition, problems = scan_file(path)
    if problems:
        raise ProblemError(problems[0], more=len(problems) - 1, see="singfactory lint")
    return definition


def parse(text: str, path: Path) -> Definition:
    """Parse a definition file's text; path is for messages. Raises ProblemError with the first problem."""
    definition, problems = scan(text, path)
    if problems:
        raise ProblemError(problems[0], more=len(problems) - 1, see="singfactory lint")
    return definition


def render(definition: Definition, values: Mapping[str, str]) -> str:
    """The whole text of a definition file, plain: arguments replaced, `%arguments` gone, canonical.

    Raises ProblemError, naming file and line, as Definition.bind does. Whatever the values hold, the
    text reads back as the same headers, sections and stages, or it is refused.
    """
    bound = definition.bind(values)
    text = bound.text()
    again, problems = scan(text, definition.path)
    if problems or not again.same_as(bound):
        raise ProblemError(
            Problem(
                Place(definition.path),
                "an argument's value changes the structure of the definition",
                "write headers and sections in the file itself, and no # or \\ into the values of headers",
            ),
            why=problems[0].message if problems else "",
        )
    return text


def scan_file(path: Path) -> tuple[Definition, tuple[Problem, ...]]:
    """What `scan` finds in a file; a file that cannot be read is a problem too."""
    nothing = Definition(path, ())
    try:
        # Decoded by hand: text mode would take a lone carriage return for the end of a line; Apptainer does not.
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        return nothing, (Problem(Place(path), f"no definition file: {reason}", "write it, or correct its name"),)
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        return nothing, (Problem(Place(path, line), "the file is not UTF-8", "save it as UTF-8 text"),)
    return scan(text, path)


def scan(text: str, path: Path) -> tuple[Definition, tuple[Problem, ...]]:
    """Parse a definition file's text: what was understood, and every problem, in the file's order."""
    parser = _Parser(path)
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    if lines[-1][1] == "":
        lines.pop()
    parser.look_at_text(text)
    before, pieces = _cut(lines, lambda line: STAGE_START.match(line) is not None)
    parser.before_the_first_stage(before, more=bool(pieces))
    stages = tuple(parser.stage(piece) for piece in pieces)
    return Definition(path, stages), tuple(sorted(parser.problems, key=lambda problem: problem.place.line))


class _Parser:
    """Collects problems while it turns lines into stages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[Problem] = []

    def _complain(self, line: int, message: str, remedy: str) -> None:
        self.problems.append(Problem(Place(self._path, line), message, remedy))

    def look_at_text(self, text: str) -> None:
        if "\0" in text:
            line = text[: text.index("\0")].count("\n") + 1
            self._complain(line, "the file holds a NUL character", "save it as text")
        for match in TEMPLATE.finditer(text):
            if "\n" in match[0]:
                line = text[: match.start()].count("\n") + 1
                self._complain(line, f"{{{{ {match[1]} }}}} spans two lines", "write it on one line")

    def before_the_first_stage(self, lines: _Lines, *, more: bool) -> None:
        number, line = next((item for item in lines if not _blank(item[1])), (0, ""))
        if line:
            what = f"{shown(line.strip())} stands before the first header"
            self._complain(number, what, "begin the file with Bootstrap: at the start of a line")
        elif not more:
            self._complain(0, "there is no Bootstrap: header", "begin the file with: Bootstrap: docker")

    def stage(self, lines: _Lines) -> Stage:
        before, pieces = _cut(lines, lambda line: line.lstrip().startswith("%"))
        headers = self._headers(before)
        sections = (self._section(piece[0], piece[1:]) for piece in pieces)
        return Stage(headers, tuple(section for section in sections if section), lines[0][0])

    def _headers(self, lines: _Lines) -> tuple[Header, ...]:
        found: dict[str, Header] = {}
        for number, line in lines:
            if _blank(line):
                continue
            key, colon, value = line.split("#")[0].partition(":")
            key, value = key.strip(), value.strip()
            spelling = key.upper() if _OTHER_URL.fullmatch(key.lower()) else _SPELLING.get(key.lower(), "")
            if not colon:
                self._complain(number, f"not a header: {shown(line.strip())}", "write Key: value, or a %section first")
            elif not spelling:
                self._complain(number, f"unknown header {shown(key)}", _nearest(key, HEADERS, "did you mean {}:?"))
            elif spelling in found:
                self._complain(number, f"{spelling}: stands twice in a stage", "remove one of the two")
            elif value.endswith("\\"):
                self._complain(number, f"{spelling}: is continued with a backslash", "write it on one line")
            else:
                found[spelling] = Header(spelling, value, number)
        return tuple(found.values())

    def _section(self, head: tuple[int, str], body: _Lines) -> Section | None:
        number, line = head
        name, _, rest = line.lstrip("%").partition(" ")
        name = name.lower()
        if not line.startswith("%") or name not in SECTIONS | APP_SECTIONS:
            remedy = _nearest(name or line.strip().lstrip("%"), sorted(SECTIONS | APP_SECTIONS), "did you mean %{}?")
            self._complain(
                number,
                f"unknown section {shown(line.strip())}",
                f"{remedy}; Apptainer takes every line that starts with % for a section, in scripts too",
            )
            return None
        args = " ".join(TEMPLATE.sub(r"{{ \1 }}", rest.split("#")[0]).split())
        section = Section(name, args, "".join(f"{text}\n" for _, text in body), number)
        self._check_args(section)
        self._check_body(section)
        return section

    def _check_args(self, section: Section) -> None:
        words = TEMPLATE.sub("x", section.args).split()
        # Apptainer makes a folder of this name, and writes to the host when it holds ..
        if section.name in APP_SECTIONS and (len(words) != 1 or _APP.fullmatch(words[0]) is None):
            self._complain(section.line, f"%{section.name} needs the name of one app", f"write %{section.name} NAME")
        if section.name == "files" and words and (len(words) != 2 or words[0] != "from"):  # noqa: PLR2004
            self._complain(section.line, f"%files {shown(section.args)} is not understood", "write %files from STAGE")

    def _check_body(self, section: Section) -> None:
        for number, text in section.lines():
            if section.name == "files":
                wrong = parse_copy(text, number)
                if isinstance(wrong, str):
                    remedy = "write SOURCE DESTINATION, with double quotes around names that hold spaces"
                    self._complain(number, f"%files: {wrong}", remedy)
            elif section.name == "arguments" and not _blank(text) and _ARGUMENT.fullmatch(text) is None:
                self._complain(number, f"%arguments: {shown(text.strip())} is not understood", "write NAME=value")


def _cut(lines: _Lines, begins: Callable[[str], bool]) -> tuple[_Lines, list[_Lines]]:
    """What stands before the first line that begins a piece, and the pieces."""
    before: _Lines = []
    pieces: list[_Lines] = []
    for item in lines:
        if begins(item[1]):
            pieces.append([item])
        else:
            (pieces[-1] if pieces else before).append(item)
    return before, pieces


def _blank(line: str) -> bool:
    """Whether a line outside of scripts says nothing: empty, or a comment."""
    return not line.strip() or line.strip().startswith("#")


def _nearest(word: str, known: tuple[str, ...] | list[str], hint: str) -> str:
    """A remedy that names the nearest known word, or all of them."""
    spelled = {item.lower(): item for item in known}
    near = get_close_matches(word.lower(), spelled, n=1)
    return hint.format(spelled[near[0]]) if near else "known are " + ", ".join(known)

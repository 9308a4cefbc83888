"""Parse Apptainer definition files and report every problem.

The parser follows Apptainer 1.4 (pkg/build/types/parser/deffile.go) and is stricter where Apptainer guesses:
repeated headers, `%files` lines of three words, text before the first header.

Apptainer begins a stage at each line that starts with `Bootstrap:`. Text before the first such line is a stage too, if
it has the header in another form, such as `Bootstrap : docker` or with blanks before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from factory.recipes.characters import described, find_hidden, find_unprintable, without_hidden
from factory.recipes.definition.copies import parse_copy
from factory.recipes.definition.definition import STAGE_START, Definition, Header, Section, Stage
from factory.recipes.definition.templates import TEMPLATE, shown
from factory.recipes.inside import UnusableError, read_inside
from factory.recipes.model import Place, Problem, ProblemError

SECTIONS = frozenset(
    {"help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "test", "startscript", "arguments"}
)
APP_SECTIONS = frozenset({"appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart"})
_SECTIONS = SECTIONS | APP_SECTIONS
HEADERS = (
    *("Bootstrap", "From", "IncludeCmd", "MirrorURL", "UpdateURL", "OSVersion", "Include", "Library", "Registry"),
    *("Namespace", "Stage", "Product", "User", "Regcode", "ProductPGP", "RegisterURL", "Modules", "Fingerprints"),
    *("ConfURL", "SetOpt"),
    *("Target", "Frontend", "Filename", "BuildArgs"),  # since Apptainer 1.5
)
_SPELLING = {key.lower(): key for key in HEADERS}
_OTHER_URL = re.compile(r"otherurl[0-9]+", re.ASCII)
_APP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_ARGUMENT = re.compile(r"\s*\w+\s*=.*", re.ASCII)

_BYTE_ORDER_MARK = "\ufeff"
_MOST_STAGES = 50
_MOST_PROBLEMS = 100  # reported per file

_Lines = list[tuple[int, str]]


def read(folder: Path, relative: str) -> Definition:
    """Read and parse a definition file in a recipe's folder. Raises ProblemError with the first problem."""
    definition, problems = scan_file(folder, relative)
    return _sound(definition, problems)


def parse(text: str, path: Path) -> Definition:
    """Parse a definition file's text; path is for messages. Raises ProblemError with the first problem."""
    return _sound(*scan(text, path))


def _sound(definition: Definition, problems: Sequence[Problem]) -> Definition:
    if problems:
        raise ProblemError(problems[0], more=len(problems) - 1, see="singfactory lint")
    return definition


def bind(definition: Definition, values: Mapping[str, str]) -> Definition:
    """Return the definition that is passed to the engine: arguments replaced, `%arguments` removed; line numbers stay.

    Its text is guaranteed to parse as these headers, sections and stages. Raises ProblemError, with file and line, as
    Definition.bind does, and for values that are not allowed where they are used.
    """
    bound = definition.bind(values)
    parser = _Parser(definition.path)
    for stage in bound.stages:
        parser.check_values(stage)
    if parser.problems:
        raise ProblemError(parser.problems[0], more=len(parser.problems) - 1, see="singfactory lint")
    return require_same(bound)


def require_same(definition: Definition) -> Definition:
    """Return the definition itself if the engine reads its text as the same definition. Raises ProblemError if not."""
    if problem := definition.too_long():
        raise ProblemError(problem)
    again, problems = scan(definition.text(), definition.path)
    if problems or not again.same_as(definition):
        raise ProblemError(
            Problem(
                Place(definition.path),
                "an argument's value changes the structure of the definition",
                "write headers and sections in the definition file, and values of headers without # and \\",
            ),
            why=problems[0].message if problems else "",
        )
    return definition


def scan_file(folder: Path, relative: str) -> tuple[Definition, tuple[Problem, ...]]:
    """Scan a file in a recipe's folder; a file that cannot be read is a problem too."""
    path = folder / relative
    nothing = Definition(path, ())
    content = b""
    try:
        content = read_inside(folder, relative)
        # Text mode would take a lone carriage return for the end of a line; Apptainer does not.
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        remedy = "create it, or correct definition under [build] in recipe.toml"
        problem = Problem(Place(path), f"no definition file: {error.strerror}", remedy)
    except UnusableError as error:
        remedy = "put the definition there as an ordinary file"
        problem = Problem(Place(path), f"{relative} {error}", remedy)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem(Place(path, line), "the file is not UTF-8", "save it as UTF-8 text")
    else:
        return scan(text, path)
    return nothing, (problem,)


def scan(text: str, path: Path) -> tuple[Definition, tuple[Problem, ...]]:
    """Parse a definition file's text. Return what was understood, and every problem in the file's order."""
    parser = _Parser(path)
    parser.check_characters(text)
    text = text.removeprefix(_BYTE_ORDER_MARK)
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    if lines[-1][1] == "":
        lines.pop()
    before, pieces = _cut(lines, lambda line: STAGE_START.match(line) is not None)
    if _has_bootstrap(before):
        pieces = [before, *pieces]
    else:
        parser.check_preamble(before, more=bool(pieces))
    parser.check_number(pieces)
    stages = tuple(parser.stage(piece) for piece in pieces[:_MOST_STAGES])
    definition = Definition(path, stages)
    parser.check_size(definition)
    return definition, tuple(sorted(parser.problems, key=lambda problem: problem.place.line))


class _Parser:
    """Turns lines into stages, and collects problems."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[Problem] = []

    def _complain(self, line: int, message: str, remedy: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(Place(self._path, line), message, remedy))

    def check_characters(self, text: str) -> None:
        if text.startswith(_BYTE_ORDER_MARK):
            self._complain(1, f"the file begins with {described(text[0])}", "save it as UTF-8 without one")
        at = find_unprintable(text)
        if at is not None:
            line = text.count("\n", 0, at) + 1
            message = f"the line contains {described(text[at])}, which editors do not show"
            self._complain(line, message, "remove it; a script can produce it with printf, as in \\033")
        match = next((match for match in TEMPLATE.finditer(text) if "\n" in match[0]), None)
        if match:
            line = text.count("\n", 0, match.start()) + 1
            self._complain(line, f"{{{{ {match[1]} }}}} spans two lines", "write it on one line")

    def check_number(self, stages: Sequence[_Lines]) -> None:
        if len(stages) > _MOST_STAGES:
            line = stages[_MOST_STAGES][0][0]
            self._complain(line, f"the file has {len(stages)} stages", f"keep at most {_MOST_STAGES}")

    def check_size(self, definition: Definition) -> None:
        if problem := definition.too_long():
            self.problems.append(problem)

    def check_values(self, stage: Stage) -> None:
        """Check a stage after its arguments are replaced."""
        for header in stage.headers:
            if "#" in header.value or header.value.endswith("\\"):
                message = f"{header.key}: {shown(header.value)} contains # or ends with \\, which the engine interprets"
                self._complain(header.line, message, "write the value without them")
        for section in stage.sections:
            self._check_args(section)
            self._check_body(section)

    def check_preamble(self, lines: _Lines, *, more: bool) -> None:
        number, line = next((item for item in lines if not _blank(item[1])), (0, ""))
        if hidden_bootstrap := _hidden_in_header(line):
            self._complain(number, *hidden_bootstrap)
        elif not more:
            self._complain(number, "there is no Bootstrap: header", "begin the file with: Bootstrap: docker")
        elif line:
            what = f"{shown(line.strip())} is above Bootstrap:, where it does not belong to the stage"
            self._complain(number, what, "move it below the line that starts with Bootstrap:")

    def stage(self, lines: _Lines) -> Stage:
        before, pieces = _cut(lines, lambda line: line.lstrip().startswith("%"))
        headers = self._headers(before)
        sections = (self._section(piece[0], piece[1:]) for piece in pieces)
        return Stage(headers, tuple(section for section in sections if section), lines[0][0])

    def _headers(self, lines: _Lines) -> tuple[Header, ...]:
        found: dict[str, Header] = {}
        for number, line, value in self._joined(lines):
            key, colon, _ = line.partition(":")
            key = key.strip()
            spelling = key.upper() if _OTHER_URL.fullmatch(key.lower()) else _SPELLING.get(key.lower(), "")
            if not colon:
                self._complain(number, f"not a header: {shown(line.strip())}", "write Key: value, or begin a %section")
            elif not spelling and (hidden := _hidden_in_header(line)):
                self._complain(number, *hidden)
            elif not spelling:
                self._complain(number, f"unknown header {shown(key)}", self._nearest(key, HEADERS, "did you mean {}:?"))
            elif spelling in found:
                self._complain(number, f"{spelling}: occurs twice in a stage", "remove one of the two")
            else:
                found[spelling] = Header(spelling, value, number)
        return tuple(sorted(found.values(), key=lambda header: header.key != "Bootstrap"))

    def _joined(self, lines: _Lines) -> Iterator[tuple[int, str, str]]:
        """Yield each header's number, line without its comment, and value. A backslash at the end continues it."""
        begun: tuple[int, str, str] | None = None
        for number, text in lines:
            line = "" if _blank(text) else text.split("#")[0]
            name = _SPELLING.get(line.partition(":")[0].strip().lower(), "") if ":" in line else ""
            if begun is not None and (not line or name):
                what = f"the header {name}:" if name else "an empty line or a comment"
                self._complain(begun[0], f"the backslash continues this line with {what}", "remove it")
                begun = None
            if not line:
                continue
            first, header, before = begun or (number, line, "")
            value = before + (line if begun else line.partition(":")[2]).strip()
            begun = None
            if not value.endswith("\\"):
                yield first, header, value
            elif value == "\\" or value.endswith("\\n\\"):  # the engine reads these otherwise
                self._complain(number, f"not continued as written: {shown(line.strip())}", "write it on one line")
            else:
                begun = first, header, value[:-1]
        if begun is not None:
            self._complain(begun[0], "the backslash continues this line, and no other header line follows", "remove it")

    def _section(self, head: tuple[int, str], body: _Lines) -> Section | None:
        number, line = head
        name, _, rest = line.lstrip("%").partition(" ")
        name = name.lower()
        if not line.startswith("%") or name not in _SECTIONS:
            message, remedy = _hidden_in_section(line) or (
                f"unknown section {shown(line.strip())}",
                self._nearest(name or line.strip().lstrip("%"), sorted(_SECTIONS), "did you mean %{}?"),
            )
            also = "for Apptainer every line that starts with % begins a section, also in scripts"
            self._complain(number, message, f"{remedy}; {also}")
            return None
        args = " ".join(TEMPLATE.sub(r"{{ \1 }}", rest.split("#")[0]).split())
        section = Section(name, args, "".join(f"{text}\n" for _, text in body), number)
        self._check_args(section)
        self._check_body(section)
        return section

    def _nearest(self, word: str, known: Sequence[str], hint: str) -> str:
        """Return a remedy that names the nearest known word, or all of them."""
        spelled = {item.lower(): item for item in known}
        near = [] if len(self.problems) >= _MOST_PROBLEMS else get_close_matches(word.lower()[:100], spelled, n=1)
        return hint.format(spelled[near[0]]) if near else "use one of " + ", ".join(known)

    def _check_args(self, section: Section) -> None:
        words = TEMPLATE.sub("x", section.args).split()
        # Apptainer creates a folder with this name, and writes to the host if the name contains ..
        if section.name in APP_SECTIONS and (len(words) != 1 or _APP.fullmatch(words[0]) is None):
            self._complain(section.line, f"%{section.name} needs the name of one app", f"write %{section.name} NAME")
        if section.name == "files" and words and (len(words) != 2 or words[0] != "from"):  # noqa: PLR2004
            message = f"invalid arguments of %files: {shown(section.args)}"
            self._complain(section.line, message, "write %files, or %files from STAGE")

    def _check_body(self, section: Section) -> None:
        for number, text in section.lines():
            if section.name == "files":
                wrong = parse_copy(text, number)
                if isinstance(wrong, str):
                    remedy = "write SOURCE /PATH/IN/THE/IMAGE, with double quotes around names that contain spaces"
                    self._complain(number, f"%files: {wrong}", remedy)
            elif section.name == "arguments" and not _blank(text) and _ARGUMENT.fullmatch(text) is None:
                at = find_hidden(text.lstrip())
                because = "" if at is None else f" because of {described(text.lstrip()[at])}"
                self._complain(number, f"%arguments: invalid line {shown(text.strip())}{because}", "write NAME=value")


def _cut(lines: _Lines, begins: Callable[[str], bool]) -> tuple[_Lines, list[_Lines]]:
    """Split lines into those before the first match of ``begins``, and one piece for each match."""
    before: _Lines = []
    pieces: list[_Lines] = []
    for item in lines:
        if begins(item[1]):
            pieces.append([item])
        else:
            (pieces[-1] if pieces else before).append(item)
    return before, pieces


def _has_bootstrap(lines: _Lines) -> bool:
    """Return whether there is a `Bootstrap:` header before the first section."""
    for _, line in lines:
        if line.lstrip().startswith("%"):
            return False
        key, colon, _ = line.partition(":")
        if colon and key.strip().lower() == "bootstrap":
            return True
    return False


def _hidden_in_section(line: str) -> tuple[str, str] | None:
    """Return the message and remedy for a blank or hidden character that makes a known section unknown."""
    words = without_hidden(line).replace("%", " ").split()
    if not words or words[0].lower() not in _SECTIONS:
        return None
    name = f"%{words[0].lower()}"
    at = find_hidden(line.replace(" ", "\t")) or 0
    remedy = f"write {name} at the start of the line, and only a space after it"
    return f"{described(line[at])} in column {at + 1} makes {name} an unknown section", remedy


def _hidden_in_header(line: str) -> tuple[str, str] | None:
    """Return the message and remedy for a hidden character that makes a known header unknown."""
    name = without_hidden(line).partition(":")[0].strip().lower()
    at = find_hidden(line.partition(":")[0].rstrip().lstrip(" \t"))
    if at is None or name not in _SPELLING:
        return None
    at += len(line) - len(line.lstrip(" \t"))
    return f"{described(line[at])} in column {at + 1} makes {_SPELLING[name]}: an unknown header", "remove it"


def _blank(line: str) -> bool:
    """Return whether a line outside of scripts is empty or a comment."""
    return not line.strip() or line.strip().startswith("#")

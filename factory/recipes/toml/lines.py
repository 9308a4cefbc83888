"""Where the keys of a TOML document stand. `tomllib` reads values and forgets their lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["KeyPath", "TooDeepError", "key_lines", "nearest_line", "refuse_deep", "tomllib"]

KeyPath = tuple[str | int, ...]

# One lexical piece: a string of one of the four kinds, a comment, or a character that means something outside of them.
# Quotes by themselves, one or three, begin a string that nothing ends.
_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r"|\"\"\"|'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n.=,\"']",
    re.DOTALL,
)
_UNCLOSED = frozenset({'"""', "'''", '"', "'"})
_DEEPEST = 16  # parts of a dotted key; recipe.toml has three at most
_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_KEY = re.compile(r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+|[ \t.])+""")


class TooDeepError(ValueError):
    """A dotted key has more parts than anybody writes. line: where."""

    def __init__(self, line: int) -> None:
        super().__init__(f"a key is nested too deeply at line {line}")
        self.line = line


def refuse_deep(text: str) -> None:
    """Raise TooDeepError for a key of many parts, before a parser sees it: tomllib takes quadratic time for one."""
    dots, line = 0, 1
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in _UNCLOSED:  # a parser reads no further, either
            return
        if piece == ".":
            dots += 1
        elif piece in "=,{\n":
            dots = 0
        line += piece.count("\n")
        if dots >= _DEEPEST:
            raise TooDeepError(line)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (1-based) of every table header and key of a valid TOML document.

    Paths are as in the parsed document: ``("build", "args", "x")``, ``("test", 0, "name")``. Keys inside
    of inline tables stand at their table's key.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for brackets, key, line in _statements(text):
        if brackets:
            table = _resolved(key, counts)
            if brackets == 2:  # noqa: PLR2004 - [[name]]
                counts[table] = counts.get(table, 0) + 1
                lines.setdefault(table, line)
                table = (*table, counts[table] - 1)
            lines.setdefault(table, line)
        else:
            for length in range(1, len(key) + 1):
                lines.setdefault((*table, *key[:length]), line)
    return lines


def nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a key, else of the closest table around it, else 0."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _statements(text: str) -> Iterator[tuple[int, tuple[str, ...], int]]:
    """Each header and key: the number of its opening brackets, its parts, its line."""
    position = _after_space(text, 0)
    line, counted = 1, 0
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        brackets = 2 if text.startswith("[[", position) else 1 if text.startswith("[", position) else 0
        match = _KEY.match(text, position + brackets)
        if match is None:  # not TOML, which the caller has found out already
            return
        yield brackets, _parts(match[0]), line
        position = _after_space(text, _after_statement(text, match.end() + brackets))


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _after_statement(text: str, position: int) -> int:
    """Where the line ends that a header or a value ends on: a line break outside of strings and brackets."""
    depth = 0
    for match in _PIECE.finditer(text, position):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
        elif match[0] == "\n" and depth <= 0:
            return match.end()
    return len(text)


def _parts(key: str) -> tuple[str, ...]:
    """A dotted key's parts, with quotes and escapes read by the TOML parser itself."""
    parts: list[str] = []
    value: object = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        ((name, value),) = value.items()
        parts.append(name)
    return tuple(parts)


def _resolved(key: tuple[str, ...], counts: dict[KeyPath, int]) -> KeyPath:
    """A header's path, with the current index after every name that is an array of tables."""
    path: KeyPath = ()
    for index, name in enumerate(key):
        path = (*path, name)
        if index < len(key) - 1 and path in counts:
            path = (*path, counts[path] - 1)
    return path

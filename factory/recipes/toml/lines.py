"""Find the lines of the keys in a TOML document, which `tomllib` does not report."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Union

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["KeyPath", "TooDeepError", "key_lines", "nearest_line", "refuse_deep", "tomllib"]

KeyPath = tuple[Union[str, int], ...]

# A token: a string of one of the four kinds, a comment, or a character with a meaning outside of them. A lone quote,
# single or triple, begins an unterminated string.
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
    """A dotted key has too many parts. line: its line."""

    def __init__(self, line: int) -> None:
        super().__init__(f"a key is nested too deeply at line {line}")
        self.line = line


def refuse_deep(text: str) -> None:
    """Raise TooDeepError for a key with many parts, before parsing: tomllib takes quadratic time for one."""
    dots, line = 0, 1
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in _UNCLOSED:  # the parser stops here too
            return
        if piece == ".":
            dots += 1
        elif piece in "=,{\n":
            dots = 0
        line += piece.count("\n")
        if dots >= _DEEPEST:
            raise TooDeepError(line)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line (1-based) of every table header and key of a valid TOML document.

    Paths are as in the parsed document: ``("build", "args", "x")``, ``("test", 0, "name")``. Keys of inline
    tables are not included.
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
    """Return the line of a key, or of the nearest table around it, or 0."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _statements(text: str) -> Iterator[tuple[int, tuple[str, ...], int]]:
    """Yield each header and key: the number of opening brackets, the parts, the line."""
    position = _after_space(text, 0)
    line, counted = 1, 0
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        brackets = 2 if text.startswith("[[", position) else 1 if text.startswith("[", position) else 0
        match = _KEY.match(text, position + brackets)
        if match is None:  # not TOML; the caller has reported it
            return
        yield brackets, _parts(match[0]), line
        position = _after_space(text, _after_statement(text, match.end() + brackets))


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _after_statement(text: str, position: int) -> int:
    """Return the offset after a header or value: after the next line break outside of strings and brackets."""
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
    """Return a dotted key's parts; the TOML parser reads quotes and escapes."""
    parts: list[str] = []
    value: object = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        ((name, value),) = value.items()
        parts.append(name)
    return tuple(parts)


def _resolved(key: tuple[str, ...], counts: dict[KeyPath, int]) -> KeyPath:
    """Return a header's path, with the current index after every array of tables."""
    path: KeyPath = ()
    for index, name in enumerate(key):
        path = (*path, name)
        if index < len(key) - 1 and path in counts:
            path = (*path, counts[path] - 1)
    return path

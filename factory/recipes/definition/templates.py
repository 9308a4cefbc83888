"""`{{ name }}` in definition files, as Apptainer replaces it (internal/pkg/build/args).

Everything here works on single lines; `factory.recipes.definition.definition` walks a definition with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from factory.recipes.model import Place, Problem, ProblemError

TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_COMMENT = re.compile(r"#[^!]")
_COMMENT_LINE = re.compile(r"\s*#")
_SHOWN = 60
_LONGEST = 64 * 1024  # characters of a line or value with its arguments replaced; Apptainer reads no more


def uses(line: str) -> Iterator[str]:
    """The names that a line needs. Comment lines need none: Apptainer leaves them alone."""
    for match in TEMPLATE.finditer(line):
        if not _in_comment(line, match.start()):
            yield match[1]


def substitute(line: str, values: Mapping[str, str], place: Place) -> str:
    """The line with every known name replaced.

    Raises ProblemError for a name without a value (in a comment line it is left as it is), where the values put a
    new template together, which Apptainer would replace a second time, and where they are too much for one line.
    """

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is not None:
            return value
        if _in_comment(line, match.start()):
            return match[0]
        raise ProblemError(undefined(match[1], place))

    replaced = _replaced(line, value_of, place)
    if any(uses(replaced)):
        raise ProblemError(
            Problem(
                place, f"a template is left after its arguments are replaced: {shown(replaced)}", "write plain values"
            )
        )
    return replaced


def expanded(values: Mapping[str, str], path: Place) -> dict[str, str]:
    """The values with templates inside of them replaced once, as Apptainer does. Raises ProblemError.

    A line break in a value could begin a section or a header of its own, so no control character passes.
    """
    for name, value in values.items():
        if any(not character.isprintable() and character != "\t" for character in value):
            raise ProblemError(
                Problem(
                    path,
                    f"the value of the argument {name!r} holds a line break or a control character: {shown(value)}",
                    "write it on one line",
                )
            )
    return {
        name: _replaced(value, lambda match: values.get(match[1], match[0]), path) for name, value in values.items()
    }


def _replaced(text: str, value_of: Callable[[re.Match[str]], str], place: Place) -> str:
    """The text with each template replaced. Raises ProblemError when a few short lines ask for a very long one."""
    pieces, position, size = [], 0, len(text)
    for match in TEMPLATE.finditer(text):
        value = value_of(match)
        size += len(value)
        if size > max(_LONGEST, len(text)):
            remedy = "write it out in the file, or into a file of its own"
            raise ProblemError(Problem(place, f"the values of arguments make more than {_LONGEST} characters", remedy))
        pieces += [text[position : match.start()], value]
        position = match.end()
    return "".join([*pieces, text[position:]])


def undefined(name: str, place: Place) -> Problem:
    """The problem of a name that has no value."""
    return Problem(
        place,
        f"the argument {name!r} is not defined",
        f'set it in recipe.toml, [build] args = {{ {name} = "…" }}, or give it a default under %arguments',
    )


def shown(text: str) -> str:
    """Untrusted text for a message: escaped, and short."""
    return ascii(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _in_comment(line: str, position: int) -> bool:
    return _COMMENT_LINE.match(line) is not None and _COMMENT.search(line, 0, position) is not None

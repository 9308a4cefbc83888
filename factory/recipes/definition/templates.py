"""`{{ name }}` in definition files, as Apptainer replaces it (internal/pkg/build/args).

These functions work on single lines; `factory.recipes.definition.definition` applies them to a definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from factory.recipes.characters import described
from factory.recipes.model import Place, Problem, ProblemError

TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_COMMENT = re.compile(r"#[^!]")
_COMMENT_LINE = re.compile(r"\s*#")
_SHOWN = 60
_LONGEST = 64 * 1024  # characters of a line or value with its arguments replaced; Apptainer reads no more


def uses(line: str) -> Iterator[str]:
    """Yield the names that a line uses. Comment lines use none: Apptainer leaves them as they are."""
    for match in TEMPLATE.finditer(line):
        if not _in_comment(line, match.start()):
            yield match[1]


def substitute(line: str, values: Mapping[str, str], place: Place) -> str:
    """Return the line with its names replaced.

    Raises ProblemError for a name without a value (in a comment line it stays), if the values form a new template,
    which Apptainer would replace again, and if the line becomes too long.
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
                place,
                f"a template remains after the arguments are replaced: {shown(replaced)}",
                "use argument values without {{ }}",
            )
        )
    return replaced


def expanded(values: Mapping[str, str], path: Place) -> dict[str, str]:
    """Return the values with the templates inside them replaced once, as Apptainer does. Raises ProblemError.

    A line break in a value could begin a new section or header, so control characters are refused.
    """
    for name, value in values.items():
        odd = next((letter for letter in value if not letter.isprintable() and letter != "\t"), "")
        if odd:
            message = f"the value of the argument {name!r} contains {described(odd)}: {shown(value)}"
            raise ProblemError(Problem(path, message, "remove it"))
    return {
        name: _replaced(value, lambda match: values.get(match[1], match[0]), path) for name, value in values.items()
    }


def _replaced(text: str, value_of: Callable[[re.Match[str]], str], place: Place) -> str:
    """Return the text with each template replaced. Raises ProblemError if the result is too long."""
    pieces, position, size = [], 0, len(text)
    for match in TEMPLATE.finditer(text):
        value = value_of(match)
        size += len(value)
        if size > max(_LONGEST, len(text)):
            message = f"with its arguments replaced, the line has more than {_LONGEST} characters"
            raise ProblemError(Problem(place, message, "use shorter values, or copy the text in with %files"))
        pieces += [text[position : match.start()], value]
        position = match.end()
    return "".join([*pieces, text[position:]])


def undefined(name: str, place: Place) -> Problem:
    """Return the problem of an argument without a value."""
    return Problem(
        place,
        f"the argument {name!r} is not defined",
        f'set it in recipe.toml, [build] args = {{ {name} = "…" }}, or give it a default under %arguments',
    )


def shown(text: str) -> str:
    """Return untrusted text for a message: quoted, escaped and shortened."""
    return ascii(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _in_comment(line: str, position: int) -> bool:
    return _COMMENT_LINE.match(line) is not None and _COMMENT.search(line, 0, position) is not None

"""`{{ name }}` in definition files, as Apptainer replaces it (internal/pkg/build/args).

Everything here works on single lines; `factory.recipes.definition` walks a definition with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from factory.recipes.model import Place, Problem, ProblemError

TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_COMMENT = re.compile(r"#[^!]")
_SHOWN = 60


def uses(line: str) -> Iterator[str]:
    """The names that a line needs. Comment lines need none: Apptainer leaves them alone."""
    for match in TEMPLATE.finditer(line):
        if not _in_comment(line, match.start()):
            yield match[1]


def substitute(line: str, values: Mapping[str, str], place: Place) -> str:
    """The line with every known name replaced.

    Raises ProblemError for a name without a value (in a comment line it is left as it is), and where
    the values put a new template together, which Apptainer would replace a second time.
    """

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is not None:
            return value
        if _in_comment(line, match.start()):
            return match[0]
        raise ProblemError(undefined(match[1], place))

    replaced = TEMPLATE.sub(value_of, line)
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
    return {name: TEMPLATE.sub(lambda match: values.get(match[1], match[0]), value) for name, value in values.items()}


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
    return line.lstrip().startswith("#") and _COMMENT.search(line[:position]) is not None

"""Shell text for the sections of a definition file.

A definition file is no neutral container: a line that begins with `%` begins a section, one that begins with
`Bootstrap:` a stage, and `{{ name }}` is replaced, wherever they are. So such text is written in a form that means the
same to a shell and nothing to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from factory.recipes.definition.definition import begins_structure
from factory.recipes.definition.templates import TEMPLATE
from factory.recipes.dockerfile.words import CLOSE, OPEN

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+", re.ASCII)
_TOKEN = re.compile(
    r"""
      (?P<quoted> '[^']*' | "(?:\\.|[^"\\`$]|\$(?!\())*" | \\. )
    | (?P<blank> [ \t]+ )
    | (?P<and> && )
    | (?P<redirect> [0-9]*>>?(?:&[0-9-])? | [0-9]*<(?![<(&]) )
    | (?P<variable> \$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}|[?!@*#0-9$-]) )
    | (?P<word> [^\s'"\\&;|<>(){}`$\#*?\[\]~!]+ )
    | (?P<pattern> [*?\[\]~{},] )
    | (?P<hash> (?<=[^\s;&|()])\# )
    """,
    re.VERBOSE | re.DOTALL,
)
# Commands that change the shell itself, and words that begin a construct.
_STATEFUL = frozenset(
    {
        *(
            ".",
            "[[",
            "alias",
            "bg",
            "break",
            "builtin",
            "case",
            "cd",
            "command",
            "continue",
            "coproc",
            "declare",
            "dirs",
        ),
        *(
            "disown",
            "do",
            "done",
            "elif",
            "else",
            "enable",
            "esac",
            "eval",
            "exec",
            "exit",
            "export",
            "fg",
            "fi",
            "for",
        ),
        *("function", "getopts", "hash", "if", "in", "jobs", "let", "local", "logout", "mapfile", "popd", "pushd"),
        *("read", "readonly", "return", "select", "set", "shift", "shopt", "source", "suspend", "then", "time", "trap"),
        *("typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
    }
)
_BUILTINS = frozenset(["[", "echo", "false", "kill", "printf", "pwd", "test", "true", "type"]) | _STATEFUL
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=", re.ASCII)


def quote(text: str) -> str:
    """Return text as one word of a shell that the engine leaves alone."""
    if _PLAIN.fullmatch(text) and not begins_structure(text):
        return text
    quoted = "'" + text.replace("'", "'\\''") + "'"
    quoted = TEMPLATE.sub(lambda match: "{''" + match[0][1:], quoted)
    return _on_lines(quoted, "''")


def _on_lines(text: str, prefix: str) -> str:
    """Put an empty string before each line, other than the first, that would begin a section or a stage."""
    first, *others = text.split("\n")
    return "\n".join([first, *(f"{prefix}{line}" if begins_structure(line) else line for line in others)])


def join(words: Sequence[str]) -> str:
    """Return a command from its words."""
    return " ".join(quote(word) for word in words)


def command(words: Sequence[str]) -> str:
    """Return a command that starts a program, even if a builtin command of the shell has its name."""
    return join(["env", *words] if words and words[0] in _BUILTINS else words)


def value(text: str) -> str:
    """Return a value as one word: references to variables stay references, all other text is literal."""
    if OPEN not in text:
        return quote(text)
    inner, _ = _referring(text, 0, inside=False)
    quoted = TEMPLATE.sub(lambda match: '{""' + match[0][1:], f'"{inner}"')
    return _on_lines(quoted, '""')


def _referring(text: str, at: int, *, inside: bool) -> tuple[str, int]:
    found: list[str] = []
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == CLOSE and inside:
            return "".join(found), at
        if letter == OPEN:
            inner, at = _referring(text, at, inside=True)
            found.append(f"${{{inner}}}")
        elif letter in '"\\$`' or (inside and letter == "}"):
            found.append("\\" + letter)
        else:
            found.append(letter)
    return "".join(found), at


def names_in(text: str) -> frozenset[str]:
    """Return the names of the variables that a value refers to."""
    return frozenset(re.findall(OPEN + r"(\w+)", text))


def is_safe(text: str) -> bool:
    """Return whether text can be in a script as it is: complete for the shell, and nothing to the engine."""
    if TEMPLATE.search(text) or any(begins_structure(line) for line in text.split("\n")):
        return False
    return not text.endswith("\\") and _is_closed(text)


_CLOSED = re.compile(r"""[^'"\\#`]+|'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<![\s;&|()])\#|\#[^\n]*""", re.DOTALL)


def _is_closed(text: str) -> bool:
    """Return whether all quotes are closed. Backquotes are not looked into: text with one counts as open."""
    at = 0
    for match in _CLOSED.finditer(text):
        if match.start() != at:
            return False
        at = match.end()
    return at == len(text)


def commands(text: str) -> tuple[str, ...] | None:
    """Split a list of simple commands at `&&`, with single blanks in them. None if text is anything else."""
    found: list[list[str]] = [[]]
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        if match["and"]:
            found.append([])
        elif match["blank"]:
            found[-1].append(" ")
        else:
            found[-1].append(match[0])
    joined = tuple("".join(parts).strip() for parts in found)
    return joined if all(_is_simple(one) for one in joined) else None


def _is_simple(text: str) -> bool:
    first = text.split(" ", 1)[0]
    return bool(first) and first not in _STATEFUL - _IN_SUBSHELL and not text.startswith(("#", "{"))


_IN_SUBSHELL = frozenset(["cd", "export", "umask", "ulimit", "unset"])  # harmless: a subshell ends with the instruction


def is_plain(text: str) -> bool:
    """Return whether a simple command changes nothing in the shell that runs it."""
    first = text.split(" ", 1)[0]
    return first not in _STATEFUL and _ASSIGNMENT.match(first) is None

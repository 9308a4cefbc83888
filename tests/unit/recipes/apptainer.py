"""How Apptainer reads a definition, written down from its sources and not from our parser.

Apptainer 1.4.5: pkg/build/types/parser/deffile.go (All, ParseDefinitionFile) and internal/pkg/build/args/reader.go.
Go's blanks and letters are not Python's, so both are spelled out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_STAGE = re.compile(r"^[bB][oO][oO][tT][sS\u017f][tT][rR][aA][pP]:", re.MULTILINE)
_ARGUMENT = re.compile(r"\{\{[\t\n\f\r ]*([0-9A-Za-z_]+)[\t\n\f\r ]*\}\}")
_COMMENT = re.compile(r"[\t\n\f\r ]*#[^!][\t\n\f\r ]*[^\n]*")
_FILES = re.compile(
    r"""(?:[^\t\n\f\r "']*\{\{[\t\n\f\r ]*[0-9A-Za-z_]+[\t\n\f\r ]*\}\}*[^\t\n\f\r {}"']*)+"""
    r"""|(?:[^\t\n\f\r "']+|"[^"]*"|'[^']*)"""
)
_APPS = {"appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart"}


class RefusedError(Exception):
    """Apptainer ends with an error."""


@dataclass
class Read:
    """One stage: headers, scripts with their arguments, and the files to copy by the arguments of their section."""

    headers: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, list[str]] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def read(text: str) -> list[Read]:
    """All stages of a file that defines no arguments. Raises RefusedError."""
    starts = [match.start() for match in _STAGE.finditer(text)]
    pieces = [text[begin:end] for begin, end in zip([0, *starts], [*starts, len(text)], strict=True)]
    for piece in pieces:
        _refuse_arguments(piece)
    return [_stage(piece) for piece in pieces if piece.strip(BLANKS)]


def _refuse_arguments(text: str) -> None:
    for match in _ARGUMENT.finditer(text):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if not _COMMENT.search(line):
            raise RefusedError("an argument")


def _lower(text: str) -> str:
    return "".join("i" if letter == "\u0130" else letter.lower() for letter in text)


def _stage(text: str) -> Read:
    found = Read()
    lines = text.split("\n")
    lines = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    tokens: list[list[str]] = [[]]
    for line in lines:
        if line.lstrip(BLANKS).startswith("%"):
            tokens.append([])
        tokens[-1].append(line)
    _headers("\n".join(tokens[0]), found)
    for token in tokens[1:]:
        _section(token[0], "".join(f"{line}\n" for line in token[1:]), found)
    return found


def _headers(text: str, found: Read) -> None:
    key = value = ""
    folded = ""
    for raw in text.strip(BLANKS).split("\n"):
        line = raw.strip(BLANKS)
        if not line or line.startswith("#"):
            folded = ""
            continue
        line = line.split("#")[0]
        if folded:
            value, folded = folded + line.strip(BLANKS), ""
        else:
            name, colon, rest = line.partition(":")
            if not colon:
                raise RefusedError("a header without a value")
            key, value = _lower(name.strip(BLANKS)), rest.strip(BLANKS)
        if value.endswith("\\"):
            folded = value.removesuffix("\\")
            continue
        found.headers[key] = value


def _section(head: str, body: str, found: Read) -> None:
    name = _lower(head.lstrip("%")).split(" ", 1)[0]
    words = head.lstrip("%").split(" ")
    arguments = head.lstrip("%").split(" ", 1)[1:]
    if name == "files":
        copies = found.files.setdefault(arguments[0] if arguments else "", [])
        for raw in body.strip(BLANKS).split("\n"):
            line = raw.strip(BLANKS)
            if line and not line.startswith("#"):
                parts = _FILES.findall(line)
                if not parts:
                    raise RefusedError("a panic")
                source, destination = parts[0], parts[1] if len(parts) > 1 else ""
                copies.append((source.strip(BLANKS).strip('"'), destination.strip(BLANKS).strip('"')))
        return
    if name in _APPS:
        if len(words) < 2:
            raise RefusedError("an app without a name")
        name = " ".join([name, words[1]])
    elif arguments:
        found.arguments[name] = arguments[0]
    found.scripts.setdefault(name, []).append(body)

"""Parse one instruction of a Dockerfile: its name, flags and arguments.

Specification: BuildKit's frontend/dockerfile/parser (line_parsers.go, split_command.go) and instructions (parse.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.matching import WordError
from factory.recipes.dockerfile.model import Flag, HereDocument, Instruction, Pair, Stage
from factory.recipes.dockerfile.words import delimiter, here_words
from factory.strict import Malformed, json_value

_ONCE, _OFTEN, _SWITCH = "once", "often", "switch"
_COPY_FLAGS = {"chown": _ONCE, "chmod": _ONCE, "link": _SWITCH, "exclude": _OFTEN}
# Each instruction's flags.
_FLAGS: Mapping[str, Mapping[str, str]] = {
    "ADD": {**_COPY_FLAGS, "keep-git-dir": _SWITCH, "checksum": _ONCE, "unpack": _SWITCH},
    "ARG": {},
    "CMD": {},
    "COPY": {**_COPY_FLAGS, "from": _ONCE, "parents": _SWITCH},
    "ENTRYPOINT": {},
    "ENV": {},
    "EXPOSE": {},
    "FROM": {"platform": _ONCE},
    "HEALTHCHECK": dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), _ONCE),
    "LABEL": {},
    "MAINTAINER": {},
    "ONBUILD": {},
    "RUN": {"mount": _OFTEN, "network": _ONCE, "security": _ONCE, "device": _OFTEN},
    "SHELL": {},
    "STOPSIGNAL": {},
    "USER": {},
    "VOLUME": {},
    "WORKDIR": {},
}
NAMES = tuple(_FLAGS)
_SCRIPTS = frozenset({"CMD", "ENTRYPOINT", "RUN", "SHELL"})  # a JSON array or text
_LISTS = frozenset({"ADD", "COPY", "EXPOSE", "FROM", "VOLUME"})
_PAIRS = frozenset({"ENV", "LABEL"})
_HAVE_DOCUMENTS = frozenset({"ADD", "COPY", "RUN"})
_EXAMPLES = {
    "ADD": "ADD SOURCE... DESTINATION",
    "ARG": "ARG NAME=DEFAULT",
    "COPY": "COPY SOURCE... DESTINATION",
    "ENV": "ENV NAME=VALUE",
    "EXPOSE": "EXPOSE 8080",
    "FROM": "FROM IMAGE, or FROM IMAGE AS NAME",
    "HEALTHCHECK": "HEALTHCHECK CMD COMMAND, or HEALTHCHECK NONE",
    "LABEL": "LABEL name=value",
    "MAINTAINER": 'LABEL org.opencontainers.image.authors="NAME"',
    "ONBUILD": "ONBUILD INSTRUCTION",
    "RUN": "RUN COMMAND",
    "SHELL": 'SHELL ["/bin/bash", "-c"]',
    "STOPSIGNAL": "STOPSIGNAL SIGTERM",
    "USER": "USER NAME",
    "VOLUME": "VOLUME /data",
    "WORKDIR": "WORKDIR /path",
}
_BLANKS = re.compile(r"[\t ]+")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)
_HERE = re.compile(r"[0-9]*<<(-?)\s*([^<]*)", re.ASCII)
_WITH_STAGE_NAME = 3  # FROM IMAGE AS NAME
_COPIES = 2  # a source and a destination


class SyntaxProblem(ValueError):
    """What is wrong with an instruction, and how to correct it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def instruction(text: str, line: int, escape: str) -> Instruction:
    """Parse an instruction from its text on one line. Raises SyntaxProblem."""
    written, _, rest = _BLANKS.sub(" ", text.strip(), count=1).partition(" ")
    name = written.upper()
    if name not in _FLAGS:
        raise _unknown(written)
    flags, arguments = _flags(name, rest)
    found = Instruction(name, line, line, arguments, flags)
    if name in _SCRIPTS:
        words = _json_array(arguments, name)
        found = Instruction(name, line, line, arguments, flags, words or (), words is not None)
    elif name in _LISTS:
        words = _json_array(arguments, name) if name not in ("EXPOSE", "FROM") else None
        listed = tuple(_BLANKS.split(arguments)) if arguments else ()
        found = Instruction(name, line, line, arguments, flags, listed if words is None else words, words is not None)
    elif name in _PAIRS:
        found = Instruction(name, line, line, arguments, flags, pairs=_pairs(arguments, name, escape))
    elif name == "ARG":
        found = Instruction(name, line, line, arguments, flags, pairs=_arguments(arguments, escape))
    elif name == "HEALTHCHECK":
        found = _health_check(arguments, flags, line)
    elif name == "ONBUILD":
        found = Instruction(name, line, line, arguments, flags, trigger=_trigger(arguments, line, escape))
    _check(found)
    return found


def here_documents_of(found: Instruction, text: str) -> tuple[HereDocument, ...]:
    """Return the here-documents that an instruction begins, without their text. Raises SyntaxProblem."""
    inner = found.trigger or found
    if inner.name not in _HAVE_DOCUMENTS or inner.is_json or "<<" not in text:
        return ()
    documents = (here_document(word) for word in here_words(text))
    return tuple(document for document in documents if document)


def here_document(word: str) -> HereDocument | None:
    """Return the here-document that a word of an instruction begins, without its text; None for any other word."""
    match = _HERE.fullmatch(word)
    if match is None or not match[2]:
        return None
    try:
        named = delimiter(match[2])
    except WordError as error:
        raise SyntaxProblem(f"{shown(word)}: {error}", "write the here-document's delimiter as <<EOF") from error
    return HereDocument(named[0], "", named[1], bool(match[1]), 0) if named else None


def stage_of(found: Instruction, index: int) -> Stage:
    """Return the stage that FROM begins, without its instructions."""
    name = found.words[2].lower() if len(found.words) == _WITH_STAGE_NAME else ""
    return Stage(index, name, found.words[0], found.flag("platform") or "", found.line, ())


def _unknown(written: str) -> SyntaxProblem:
    near = get_close_matches(written.upper()[:100], NAMES, n=1)
    continued = "if it continues the line above, end that one with \\"
    remedy = f"did you mean {near[0]}?" if near else continued
    return SyntaxProblem(f"there is no instruction {shown(written)}", remedy)


def _flags(name: str, text: str) -> tuple[tuple[Flag, ...], str]:
    """Return the flags at the beginning of the arguments, and the rest. Raises SyntaxProblem."""
    found: list[Flag] = []
    known = _FLAGS[name]
    while (text := text.lstrip()).startswith("--"):
        word, text = _flag_word(text)
        if word == "--":
            break
        flag, equals, value = word[2:].partition("=")
        kind = known.get(flag)
        if kind is None:
            near = get_close_matches(flag[:100], known, n=1)
            some = " ".join(f"--{one}" for one in known) or "none"
            raise SyntaxProblem(
                f"{name} has no flag {shown(f'--{flag}')}",
                f"did you mean --{near[0]}?" if near else f"its flags: {some}",
            )
        if kind != _OFTEN and any(flag == one.name for one in found):
            raise SyntaxProblem(f"--{flag} occurs twice", "remove one of the two")
        if kind == _SWITCH and (equals and value.lower() not in ("true", "false")):
            raise SyntaxProblem(f"--{flag} is {shown(value)}", f"write --{flag}, or --{flag}=false")
        if kind != _SWITCH and not equals:
            raise SyntaxProblem(f"--{flag} has no value", f"write --{flag}=VALUE")
        found.append(Flag(flag, value if equals else None))
    return tuple(found), text.strip()


def _flag_word(text: str) -> tuple[str, str]:
    r"""Read one word; quotes are removed, and \ escapes a character, even if the file has another escape character."""
    letters: list[str] = []
    quote, at = "", 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "\\":
            letters.append(text[at : at + 1])
            at += 1
        elif quote:
            if letter == quote:
                quote = ""
            else:
                letters.append(letter)
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            break
        else:
            letters.append(letter)
    return "".join(letters), text[at:]


def _json_array(text: str, name: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array; None if the text is none, which Docker then takes for ordinary text."""
    if not text.startswith("["):
        return None
    try:
        value = json_value(text)
    except Malformed:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SyntaxProblem(f"the array of {name} has items that are no strings", 'write strings, as in ["a", "1"]')
    return tuple(value)


def _words(text: str, escape: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and escapes stay."""
    words: list[str] = []
    letters: list[str] = []
    quote, at = "", 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter.isspace() and not quote:
            if letters:
                words.append("".join(letters))
                letters = []
            continue
        if letter == escape and quote != "'":
            if at == len(text):  # ignored at the end
                break
            letters.append(letter)
            letter = text[at]
            at += 1
        elif quote == letter:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        letters.append(letter)
    if letters:
        words.append("".join(letters))
    return words


def _pairs(text: str, name: str, escape: str) -> tuple[Pair, ...]:
    """Parse ``NAME=VALUE...``, or the old form ``NAME VALUE``, in which the value is the rest of the line."""
    words = _words(text, escape)
    if words and "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) == 1:
            raise SyntaxProblem(f"{name} {shown(text)} has no value", f"write {_EXAMPLES[name]}")
        return (Pair(parts[0], parts[1]),)
    for word in words:
        if "=" not in word:
            raise SyntaxProblem(f"{name}: {shown(word)} has no =", f"write {_EXAMPLES[name]}; quote values with spaces")
    return tuple(_named(word, name) for word in words)


def _arguments(text: str, escape: str) -> tuple[Pair, ...]:
    """Parse ``NAME`` and ``NAME=DEFAULT``, several of them."""
    return tuple(_named(word, "ARG") if "=" in word else Pair(word, None) for word in _words(text, escape))


def _named(word: str, of: str) -> Pair:
    name, _, value = word.partition("=")
    if not name:
        raise SyntaxProblem(f"{of} has a value without a name: {shown(word)}", f"write {_EXAMPLES[of]}")
    return Pair(name, value)


def _health_check(text: str, flags: tuple[Flag, ...], line: int) -> Instruction:
    kind, _, rest = _BLANKS.sub(" ", text, count=1).partition(" ")
    words = _json_array(rest, "HEALTHCHECK")
    kind = kind.upper()
    found = Instruction("HEALTHCHECK", line, line, rest, flags, (kind, *(words or ())), words is not None)
    has_command = bool(rest if words is None else words)
    if kind not in ("CMD", "NONE") or (kind == "CMD") != has_command:
        raise SyntaxProblem(f"HEALTHCHECK {shown(text)} is not a health check", f"write {_EXAMPLES['HEALTHCHECK']}")
    return found


def _trigger(text: str, line: int, escape: str) -> Instruction | None:
    if not text:
        return None
    first = text.split(maxsplit=1)[0].upper()
    if first in ("ONBUILD", "FROM", "MAINTAINER"):
        raise SyntaxProblem(f"ONBUILD {first} is not possible", "write another instruction after ONBUILD")
    return instruction(text, line, escape)


def _check(found: Instruction) -> None:
    """Raise SyntaxProblem if an instruction has too few or too many arguments."""
    name = found.name
    enough = bool(found.words if found.is_json else found.text) or name in ("CMD", "ENTRYPOINT", "HEALTHCHECK")
    if name in ("ADD", "COPY"):
        enough = len(found.words) >= _COPIES
    if not enough:
        raise SyntaxProblem(f"{name} has too few arguments", f"write {_EXAMPLES[name]}")
    if name == "SHELL" and not (found.is_json and found.words):
        raise SyntaxProblem("SHELL needs a JSON array", f"write {_EXAMPLES[name]}")
    if name in ("ADD", "COPY") and not found.is_json and here_document(found.words[-1]):
        raise SyntaxProblem(f"{name} has a here-document as its destination", f"write {_EXAMPLES[name]}")
    if name == "VOLUME" and not all(word.strip() for word in found.words):
        raise SyntaxProblem("VOLUME has an empty path", f"write {_EXAMPLES[name]}")
    if name == "FROM":
        _check_from(found)


def _check_from(found: Instruction) -> None:
    words = found.words
    if len(words) == 1:
        return
    if len(words) != _WITH_STAGE_NAME or words[1].lower() != "as":
        raise SyntaxProblem("FROM has neither one nor three arguments", f"write {_EXAMPLES['FROM']}")
    if _STAGE_NAME.fullmatch(words[2].lower()) is None:
        remedy = "use a letter first, then letters, digits, _ . -"
        raise SyntaxProblem(f"{shown(words[2])} is not a name for a stage", remedy)

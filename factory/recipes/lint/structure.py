"""Checks for scripts that the engine reads differently than their authors expect."""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.recipes.characters import described, find_hidden
from factory.recipes.definition.definition import Section, Stage
from factory.recipes.definition.heredocs import open_here_document
from factory.recipes.definition.templates import shown
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_SCRIPTS = frozenset({"post", "test", "runscript", "startscript", "environment", "setup", "pre"})
_APP_SCRIPTS = frozenset({"appinstall", "apprun", "apptest", "appenv", "appstart"})
_SHELL = re.compile(r"(?:.*/)?(?:ba|da|a|k|z)?sh")
_INDENTATION = re.compile(r"^\s+")
_BOOTSTRAP = re.compile(r"\s*bootstrap\s*:\s*[a-z-]+\s*(?:#.*)?", re.IGNORECASE)


def _scripts(subject: Subject) -> Iterator[Section]:
    for stage in subject.definition.stages:
        yield from (section for section in stage.sections if _is_shell(section))


def _is_shell(section: Section) -> bool:
    words = section.args.split()
    interpreter = words[words.index("-c") + 1 :] if "-c" in words else ()
    return section.name in _APP_SCRIPTS or (
        section.name in _SCRIPTS and (not interpreter or _SHELL.fullmatch(interpreter[0]) is not None)
    )


def _here_documents(subject: Subject) -> Iterator[Problem]:
    """Report sections and stages that begin inside of a here-document: the engine cuts the script there."""
    parts: list[Section | Stage] = []
    for stage in subject.definition.stages:
        parts += (stage, *stage.sections)
    for section, following in zip(parts, parts[1:]):
        if not isinstance(section, Section) or not _is_shell(section):
            continue
        document = open_here_document(section.body)
        if document is not None:
            begun = f"%{following.name}" if isinstance(following, Section) else "a stage"
            opened = section.line + 1 + document.line
            message = f"%{section.name} ends here, inside the here-document {shown(document.operator)} of line {opened}"
            remedy = f"{begun} begins at this line; copy the text in with %files, or write the line with printf"
            yield subject.warning(following.line, message, remedy)


def _late_stages(subject: Subject) -> Iterator[Problem]:
    """Report `Bootstrap:` lines that begin no stage because of blanks, and so are part of a script."""
    for section in _scripts(subject):
        for line, text in section.lines():
            if _BOOTSTRAP.fullmatch(text):
                message = f"the engine reads this line as part of %{section.name}, not as the beginning of a stage"
                yield subject.warning(line, message, "write Bootstrap: at the start of the line, without blanks in it")


def _hidden_characters(subject: Subject) -> Iterator[Problem]:
    """Report the first hidden character of each script and of `%labels`, where it is part of a word."""
    labels = (section for stage in subject.definition.stages for section in stage.named("labels"))
    for section in (*_scripts(subject), *labels):
        for line, text in section.lines():
            # A tab separates words for a shell, but not for the engine.
            code = _INDENTATION.sub(_spaces, text.rstrip()) if section.name == "labels" else text.replace("\t", " ")
            at = None if code.lstrip().startswith("#") else find_hidden(code)
            if at is not None:
                message = f"{described(text[at])} in column {at + 1} does not separate words in %{section.name}"
                yield subject.warning(line, message, "replace it with a space, or remove it")
                break


def _spaces(match: re.Match[str]) -> str:
    return " " * len(match[0])


CHECKS = (_here_documents, _late_stages, _hidden_characters)

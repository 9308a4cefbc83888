"""Warnings about variables of `%environment` that `%post` uses: they are not set while the image is built."""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.recipes.definition.definition import Section, Stage
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_SET = re.compile(r"(?:^|[\s;&])(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", re.ASCII)
_READ = re.compile(r"(?:^|[\s;&])(?:read|for|unset)[ \t]+(?:-[a-z]+[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_USED = re.compile(r"(?<!\\)\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?P<rest>[:+?=-])?|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)
_SINGLE = re.compile(r"'[^']*'")
_ALWAYS_SET = frozenset({"PATH", "HOME", "PWD", "OLDPWD", "IFS", "SHLVL", "TZ", "LC_ALL", "SOURCE_DATE_EPOCH"})


def _unset_in_post(subject: Subject) -> Iterator[Problem]:
    for stage in subject.definition.stages:
        exported = {name for section in stage.named("environment") for name in _assigned(section)} - _ALWAYS_SET
        if not exported or _reads_a_file(stage):
            continue
        known = set[str]()
        for section in stage.named("post"):
            for number, text in section.lines():
                line = "" if text.lstrip().startswith("#") else text
                known |= {*_SET.findall(line), *_READ.findall(line)}
                for name in _uses(line):
                    if name in exported and name not in known:
                        message = f"${name} is set in %environment, which does not apply to %post: it is empty here"
                        yield subject.warning(number, message, f"write export {name}=… at the beginning of %post, too")
                        known.add(name)


def _assigned(section: Section) -> Iterator[str]:
    for _, text in section.lines():
        if not text.lstrip().startswith("#"):
            yield from _SET.findall(text)


def _uses(line: str) -> Iterator[str]:
    """Yield the names that a line expands, except between single quotes and those with a default: ``${X:-1}``."""
    for match in _USED.finditer(_SINGLE.sub("", line)):
        if not match["rest"]:
            yield match[1] or match[3]


def _reads_a_file(stage: Stage) -> bool:
    """Return whether `%post` reads variables from a file (``. FILE``), such as one of the base image's."""
    source = re.compile(r"^\s*(?:\.|source)[ \t]+\S")
    return any(source.match(text) for section in stage.named("post") for _, text in section.lines())


CHECKS = (_unset_in_post,)

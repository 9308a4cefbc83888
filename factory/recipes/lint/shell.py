"""Shell commands in `%post`, and warnings about those that make images large or lose files.

Commands are parsed roughly, so these are warnings, never errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory.recipes.definition.definition import Stage
from factory.recipes.definition.heredocs import lines_of_bodies
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_SEPARATORS = re.compile(r"&&|\|\||;|\||\bthen\b|\bdo\b|\belse\b")
PIP = re.compile(r"(?:.*/)?pip[0-9.]*")
_LOST = re.compile(r"[\"']?(/tmp|/root|~|\$HOME|\$\{HOME\})(?:/|[\"']?$)")
_LONGEST_PATH = 4096  # characters (PATH_MAX)
_WRITERS = frozenset({"cp", "mv", "ln", "install", "mkdir", "touch", "tee", "rsync"})
_TARGET_OPTIONS = frozenset({"-o", "-O", "-C", "-d", "-p", "--output", "--prefix", "--directory", "--target", "-P"})


@dataclass(frozen=True)
class Command:
    """A simple command of a script: its words and its first line."""

    words: tuple[str, ...]
    line: int

    def calls(self, *names: str) -> bool:
        """Return whether one of its words is a program with one of these names."""
        return any(word.rpartition("/")[2] in names for word in self.words)


def commands_of(stage: Stage, name: str = "post") -> tuple[Command, ...]:
    """Return the simple commands of a stage's `%post`, or another section, split roughly at separators and keywords."""
    found = []
    for section in stage.named(name):
        start, parts = 0, list[str]()
        texts = lines_of_bodies(section.body)
        for number, line in section.lines():
            if number - section.line - 1 in texts:
                continue
            if not parts:
                start = number
            if line.endswith("\\"):
                parts.append(line[:-1])
                continue
            text = " ".join([*parts, line])
            if not text.lstrip().startswith("#"):
                found += [Command(tuple(part.split()), start) for part in _SEPARATORS.split(text) if part.split()]
            parts = []
    return tuple(found)


def is_apt(command: Command, action: str) -> bool:
    """Return whether the command is `apt-get install`, or another action."""
    return command.calls("apt-get", "apt") and action in command.words


def _pip_cache(subject: Subject) -> Iterator[Problem]:
    if subject.recipe.quiet.caches:
        return
    for stage in subject.definition.stages:
        without = False
        for command in commands_of(stage):
            without = without or any("PIP_NO_CACHE_DIR=" in word for word in command.words)
            pip = next((index for index, word in enumerate(command.words) if PIP.fullmatch(word)), None)
            if pip is None or without or "install" not in command.words[pip:]:
                continue
            if "--no-cache-dir" not in command.words:
                message = "pip install leaves its download cache in the image"
                yield subject.warning(command.line, message, "add --no-cache-dir")


def _lost_files(subject: Subject) -> Iterator[Problem]:
    """Report files in places that are covered by the host's folders at run time."""
    for stage in subject.definition.stages:
        removed: set[str] = set()  # by later commands
        found: list[tuple[Command, str, str]] = []
        for command in reversed(commands_of(stage)):
            for target in _targets(command):
                match = _LOST.match(target)
                if match and not _is_removed(target, removed):
                    found.append((command, target.strip('"'), match[1]))
            if command.calls("rm"):
                removed |= {word.strip("\"'").rstrip("*").rstrip("/") for word in command.words[1:]}
        for command, target, where in reversed(found):
            whose = "the host's" if where == "/tmp" else "the user's own, or unreadable,"  # noqa: S108
            message = f"{target} is written in %post, but {where} is {whose} when the image runs"
            yield subject.warning(command.line, message, "write it below /opt or /usr/local, or remove it in %post")


def _targets(command: Command) -> Iterator[str]:
    """Yield the words that a command seems to write to."""
    words = command.words
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        if word in (">", ">>") or word in _TARGET_OPTIONS:
            yield following
        elif word.startswith(">"):
            yield word.lstrip(">")
        elif "=" in word and word.partition("=")[0] in _TARGET_OPTIONS:
            yield word.partition("=")[2]
    is_clone = command.calls("git") and "clone" in words
    if (words[0].rpartition("/")[2] in _WRITERS or is_clone) and ">" not in words:
        yield words[-1]


def _is_removed(target: str, removed: set[str]) -> bool:
    """Return whether the target or a folder above it is removed later."""
    path = target.strip("\"'").rstrip("/")[:_LONGEST_PATH]
    while path:
        if path in removed:
            return True
        path = path.rpartition("/")[0]
    return False


CHECKS = (_pip_cache, _lost_files)

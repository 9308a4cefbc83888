"""Warnings about package managers: installs that ask a question, and the caches that they leave behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory.recipes.lint.shell import Command, commands_of, is_apt
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_SHORT_YES = re.compile(r"-[a-xzA-Z]*y[a-zA-Z]*")
_LISTS = "/var/lib/apt/lists"
_APT_ASKS = frozenset(
    {"install", "upgrade", "dist-upgrade", "full-upgrade", "remove", "purge", "autoremove", "build-dep"}
)
_DNF_ASKS = frozenset({"install", "localinstall", "groupinstall", "reinstall", "update", "upgrade", "remove", "erase"})
_CONDA = ("conda", "mamba", "micromamba")


@dataclass(frozen=True)
class Manager:
    """A package manager. asks: the actions that ask before they act. yes: options that answer; the first is advised."""

    names: tuple[str, ...]
    asks: frozenset[str]
    yes: tuple[str, ...]
    takes_y: bool = True

    def question(self, command: Command) -> str:
        """Return the program and action of a command that asks, without an option that answers; '' for others."""
        at = next((at for at, word in enumerate(command.words) if word.rpartition("/")[2] in self.names), None)
        if at is None:
            return ""
        program, rest = command.words[at].rpartition("/")[2], command.words[at + 1 :]
        action = next((word for word in rest if word in self.asks), "")
        if rest[:1] == ("env",):  # conda env create does not ask
            return ""
        answered = any(word in self.yes or (self.takes_y and _SHORT_YES.fullmatch(word)) for word in rest)
        return f"{program} {action}" if action and not answered else ""


_MANAGERS = (
    Manager(("apt-get", "apt"), _APT_ASKS, ("-y", "--yes", "--assume-yes", "-qq", "-qqq")),
    Manager(("dnf", "yum", "microdnf", "tdnf"), _DNF_ASKS, ("-y", "--assumeyes")),
    Manager(
        ("zypper",), frozenset({"install", "in", "update", "up", "remove", "rm"}), ("-y", "-n", "--non-interactive")
    ),
    Manager(_CONDA, frozenset({"install", "create", "update", "remove"}), ("-y", "--yes")),
    Manager(("pip", "pip3"), frozenset({"uninstall"}), ("-y", "--yes")),
)


@dataclass(frozen=True)
class Cache:
    """The cache of a package manager.

    fills: actions that fill it. avoids: words of a command that leaves none. cleans: words of a later command that
    removes it.
    """

    names: tuple[str, ...]
    fills: frozenset[str]
    cleans: tuple[str, ...]
    remedy: str
    avoids: tuple[str, ...] = ()


_CACHES = (
    Cache(_CONDA, frozenset({"install", "create", "update"}), ("clean",), "end %post with conda clean --all --yes"),
    Cache(("dnf", "yum", "microdnf"), _DNF_ASKS, ("clean", "/var/cache"), "end %post with dnf clean all"),
    Cache(("apk",), frozenset({"add"}), ("/var/cache/apk",), "write apk add --no-cache", avoids=("--no-cache",)),
    Cache(("zypper",), frozenset({"install", "in"}), ("clean", "/var/cache"), "end %post with zypper clean --all"),
)


def _asks(subject: Subject) -> Iterator[Problem]:
    for stage in subject.definition.stages:
        for command in commands_of(stage):
            for manager in _MANAGERS:
                if what := manager.question(command):
                    yes = manager.yes[0]
                    message = f"{what} without {yes} asks a question that nobody answers in a build"
                    yield subject.warning(command.line, message, f"add {yes} to it")


def _old_lists(subject: Subject) -> Iterator[Problem]:
    for stage in subject.definition.stages:
        commands = commands_of(stage)
        first = next((at for at, command in enumerate(commands) if is_apt(command, "install")), None)
        if first is not None and not any(is_apt(command, "update") for command in commands[:first]):
            message = "apt-get install without apt-get update before it finds old packages or none"
            yield subject.warning(commands[first].line, message, "add apt-get update before it")


def _caches(subject: Subject) -> Iterator[Problem]:
    """Report caches that stay in the image. By default a rule of quiet builds removes them."""
    if subject.recipe.quiet.caches:
        return
    for stage in subject.definition.stages:
        commands = commands_of(stage)
        installs = [at for at, command in enumerate(commands) if is_apt(command, "install")]
        if installs and not _mentions(commands[installs[-1] :], (_LISTS,)):
            remedy = f"end %post with rm -rf {_LISTS}/*"
            yield subject.warning(commands[installs[0]].line, "the package lists of apt-get stay in the image", remedy)
        for cache in _CACHES:
            filled = [at for at, command in enumerate(commands) if _fills(command, cache)]
            if filled and not _mentions(commands[filled[-1] + 1 :], cache.cleans):
                name = next(word for word in cache.names if commands[filled[0]].calls(word))
                message = f"the package cache of {name} stays in the image"
                yield subject.warning(commands[filled[0]].line, message, cache.remedy)


def _fills(command: Command, cache: Cache) -> bool:
    return (
        command.calls(*cache.names)
        and not cache.fills.isdisjoint(command.words)
        and not any(word in command.words for word in cache.avoids)
    )


def _mentions(commands: tuple[Command, ...], texts: tuple[str, ...]) -> bool:
    return any(text in word for command in commands for word in command.words for text in texts)


CHECKS = (_asks, _old_lists, _caches)

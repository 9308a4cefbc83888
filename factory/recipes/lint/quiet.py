"""Warnings about unpinned downloads, which can differ in the next build.

Commands are parsed roughly, as in lint_shell. Each kind is reported once per recipe; `hints = false` under `[quiet]`
turns them off.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from factory.recipes.definition.definition import Stage
from factory.recipes.inside import UnusableError, folder_inside, read_inside
from factory.recipes.lint.shell import PIP, Command, commands_of, is_apt
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_SNAPSHOT = re.compile(r"snapshot", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_URL = re.compile(r"[\"']?(?:https?|ftp)://", re.ASCII)
_CHECKERS = ("sha256sum", "sha512sum", "sha1sum", "md5sum", "b2sum", "shasum", "gpg", "gpgv", "cosign", "minisign")
_PIP_VALUES = frozenset(
    {
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-t",
        "--target",
        "--prefix",
        "--root",
        "--retries",
    }
    | {"--timeout", "--trusted-host", "-c", "--constraint", "--proxy", "--cert", "--platform", "--python-version"}
    | {
        "--only-binary",
        "--no-binary",
        "--cache-dir",
        "--src",
        "--upgrade-strategy",
        "--progress-bar",
        "--config-settings",
    }
)
_REQUIREMENTS = ("-r", "--requirement")


def _hints(subject: Subject) -> Iterator[Problem]:
    if not subject.recipe.quiet.hints:
        return
    stages = subject.bound[0].stages
    for line_of, message, remedy in _KINDS:
        line = next((line for line in (line_of(subject, stage) for stage in stages) if line), 0)
        if line:
            yield subject.warning(line, message, f"{remedy}, or set hints = false under [quiet] in recipe.toml")


def _apt(_: Subject, stage: Stage) -> int:
    texts = [header.value for header in stage.headers] + [section.body for section in stage.named("post")]
    if any(_SNAPSHOT.search(text) for text in texts):
        return 0
    for command in commands_of(stage):
        if is_apt(command, "install"):
            packages = command.words[command.words.index("install") + 1 :]
            if any("=" not in word for word in packages if not word.startswith(("-", ">", "2>", "$", "./", "/"))):
                return command.line
    return 0


def _pip(subject: Subject, stage: Stage) -> int:
    for command in commands_of(stage):
        at = next((index for index, word in enumerate(command.words) if PIP.fullmatch(word)), None)
        if at is not None and "install" in command.words[at:] and "--require-hashes" not in command.words:
            words = command.words[command.words.index("install", at) + 1 :]
            if not all(_is_pinned(subject, word, previous) for previous, word in zip(("", *words), words)):
                return command.line
    return 0


def _is_pinned(subject: Subject, word: str, previous: str) -> bool:
    """Return whether a word after `pip install` is no unpinned requirement. previous: the word before it."""
    word = word.strip("\"'")
    if previous in _REQUIREMENTS:
        return _file_is_pinned(subject, word)
    if previous in _PIP_VALUES or word.startswith(("-", "$", ".", "/", ">", "2>")) or not word:
        return True
    return "==" in word or "@" in word or word.endswith((".whl", ".tar.gz"))


def _file_is_pinned(subject: Subject, name: str) -> bool:
    """Return whether every line of a requirements file names a version; True if `%files` does not copy the file."""
    for _, copy in subject.copies():
        if (copy.destination or copy.source).rstrip("/") in (name, name.rpartition("/")[0]):
            content = _content(subject.recipe.folder, copy.source, name.rpartition("/")[2])
            lines = [line.partition("#")[0].strip() for line in content.decode("utf-8", "replace").splitlines()]
            return all("==" in line or "@" in line for line in lines if line and not line.startswith("-"))
    return True


def _content(folder: Path, source: str, name: str) -> bytes:
    """Return the content of a source of `%files`, or of the named file in it if it is a folder; b"" if there is none.

    Problems of sources are reported by lint_host.
    """
    with contextlib.suppress(UnusableError, FileNotFoundError):
        return read_inside(folder, f"{source}/{name}" if folder_inside(folder, source) else source)
    return b""


def _download(_: Subject, stage: Stage) -> int:
    commands = commands_of(stage)
    if any(command.calls(*_CHECKERS) for command in commands):
        return 0
    return _first(commands, lambda command: command.calls("curl", "wget") and any(map(_URL.match, command.words)))


def _clone(_: Subject, stage: Stage) -> int:
    commands = commands_of(stage)
    if any(command.calls("git") and any(map(_COMMIT.search, command.words)) for command in commands):
        return 0
    return _first(commands, lambda command: command.calls("git") and "clone" in command.words)


def _first(commands: tuple[Command, ...], wanted: Callable[[Command], bool]) -> int:
    return next((command.line for command in commands if wanted(command)), 0)


_KINDS: tuple[tuple[Callable[[Subject, Stage], int], str, str], ...] = (
    (_apt, "apt-get install takes the mirror's current versions", "write NAME=VERSION, or use a snapshot mirror"),
    (_pip, "pip install takes the newest versions", "write NAME==VERSION, or use --require-hashes"),
    (_download, "a download is not verified and can change", "verify it with sha256sum -c"),
    (_clone, "git clone takes the newest commit", "check out a commit by its full hash"),
)
CHECKS = (_hints,)

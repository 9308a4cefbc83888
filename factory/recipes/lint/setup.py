"""What to write instead of a command of `%setup` or `%pre`, which run on the build host."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from factory.recipes.lint.shell import Command

_ROOT = re.compile(r"\"?\$\{?(?:SINGULARITY|APPTAINER)_ROOTFS\}?\"?")
_COPIES = frozenset({"cp", "install", "mv", "rsync"})
_WITH_VALUE = frozenset({"-m", "-o", "-g", "--mode", "--owner", "--group"})  # options of install
_READ_NOTHING = frozenset({"mkdir", "touch", "chmod", "chown", "chgrp", "ln", "rm", "rmdir", "echo", "printf"})
_IGNORED = frozenset({"cd", "set", "fi", "done", "true"})
_STAGE = "run it in %post, or in an earlier stage, and copy its result with %files from STAGE"


def instead(command: Command) -> str:
    """Return a remedy: lines for `%files`, a command for `%post`, an earlier stage, or '' if nothing replaces it."""
    program, *arguments = command.words
    words = [
        word
        for word, previous in zip(arguments, command.words)
        if not word.startswith("-") and (program != "install" or previous not in _WITH_VALUE)
    ]
    if program in _COPIES and len(words) > 1 and _ROOT.match(words[-1]):
        return _files(words[:-1], _inside(words[-1]))
    if any(_ROOT.search(word) for word in command.words):
        first = "" if program in _READ_NOTHING else "copy the files that it reads with %files, and "
        return f"{first}write in %post: " + " ".join(_inside(word) for word in command.words)
    return "" if program in _IGNORED else _STAGE


def _files(sources: list[str], destination: str) -> str:
    lines = []
    sources = [source.strip("\"'") for source in sources]
    away = [source for source in sources if source.startswith(("/", "..", "~", "$"))]
    for source in sources:
        name = PurePosixPath(source).name
        lines.append(f"{f'files/{name}' if source in away else source} {destination}")
    first = f"copy {', '.join(away)} into the recipe's folder files/, and " if away else ""
    return f"{first}write under %files: {'; '.join(lines)}"


def _inside(word: str) -> str:
    """Return a word with the image's root folder as ``/``."""
    return _ROOT.sub("", word).replace('"', "") or "/"

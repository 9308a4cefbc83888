"""Refuse git repositories below the folder of recipes: running git there would run programs from their settings.

Git takes a folder for a repository if it contains HEAD, objects and refs, or HEAD and commondir
(gitrepository-layout(5)). Such files can be committed like any other; a ``.git`` only with malicious intent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from factory.recipes.model import Place, Problem

# Names that file systems treat as .git, from verify_path in git's read-cache.c: case, characters that HFS+ ignores,
# and NTFS short names.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_GIT = re.compile(r"(?:\.git|git~[0-9])[. ]*(?::.*)?")
_REPOSITORIES = ({"head", "objects", "refs"}, {"head", "commondir"})
_MESSAGE = "a git repository inside the folder of recipes: git would run the programs that its settings name"


def check_folder(folder: Path) -> Iterator[Problem]:
    """Yield a problem for each repository in a folder or below it, hidden folders included; links are not followed."""
    waiting = [] if folder.is_symlink() else [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as found:
                entries = list(found)
        except OSError:  # git, run by this user, cannot read it either
            continue
        for entry in entries:
            if _is_git(entry.name):
                yield Problem(Place(here / entry.name), _MESSAGE, "remove it")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(here / entry.name)
        names = {entry.name.casefold() for entry in entries}
        for marks in _REPOSITORIES:
            if marks <= names:
                remedy = f"remove or rename its {', '.join(sorted(marks - {'head'}))} and HEAD"
                yield Problem(Place(here / "HEAD"), _MESSAGE, remedy)


def check_root(root: Path) -> Iterator[Problem]:
    """As check_folder, but allow a ``.git`` at the top: the folder of recipes may be the project's own repository."""
    return (problem for problem in check_folder(root) if problem.place.path != root / ".git")


def _is_git(name: str) -> bool:
    return _GIT.fullmatch(_IGNORED.sub("", name).casefold()) is not None

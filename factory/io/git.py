"""What git knows of a folder: for records, never for decisions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from factory.errors import FactoryError
from factory.io import process


def revision(folder: Path, env: Mapping[str, str]) -> str:
    """The last commit that changed the folder; with ``-dirty`` when files there are not committed; '' without git."""
    commit = _ask(["git", "-C", str(folder), "log", "-1", "--format=%H", "--", "."], env)
    dirty = _ask(["git", "-C", str(folder), "status", "--porcelain", "--", "."], env) if commit else ""
    return f"{commit}-dirty" if dirty else commit


def committed(folders: Sequence[Path], env: Mapping[str, str]) -> int:
    """When the folders were changed last, by the committer's clock, in seconds since 1970.

    0 where git does not know: outside of a repository, without git, and when files there are not committed.
    """
    first = str(folders[0])
    paths = [str(folder.resolve()) for folder in folders]
    seconds = _ask(["git", "-C", first, "log", "-1", "--format=%ct", "--", *paths], env)
    if not seconds.isdigit() or _ask(["git", "-C", first, "status", "--porcelain", "--", *paths], env):
        return 0
    return int(seconds)


def remote(folder: Path, env: Mapping[str, str]) -> str:
    """The web address of the repository that ``origin`` names, without a login; '' when there is none."""
    url = _ask(["git", "-C", str(folder), "remote", "get-url", "origin"], env)
    url = re.sub(r"^(?:ssh://git@([^:/]+)(?::\d+)?/|git@([^:/]+):)", r"https://\1\2/", url)
    url = re.sub(r"^(https?://)[^/]*@", r"\1", url)
    return url.removesuffix(".git") if url.startswith(("https://", "http://")) else ""


def place(folder: Path, env: Mapping[str, str]) -> str:
    """The folder's path in its repository, with / between and at the end; '' at the top, or without git."""
    return _ask(["git", "-C", str(folder), "rev-parse", "--show-prefix"], env)


def tracked(repository: Path, folder: Path, env: Mapping[str, str]) -> str:
    """The first path that git tracks at or below a folder; '' when there is none, outside of the repository too."""
    return _ask(["git", "-C", str(repository), "ls-files", "-z", "--", str(folder)], env).partition("\0")[0]


def _ask(command: list[str], env: Mapping[str, str]) -> str:
    try:
        status, out, _ = process.output_of(command, env=env)
    except FactoryError:
        return ""
    return out.decode("utf-8", "replace").strip() if status == 0 else ""

"""Code of the project itself: where its packages are, and, with `--include-code`, which of its files to copy."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from factory.errors import UsageError
from factory.io.files import readable_size
from factory.recipes.projects.documents import Toml
from factory.recipes.projects.model import OwnCode

_MOST_FILES = 5000
_LARGEST = 50_000_000  # bytes
_LEFT_OUT = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
    }
    | {"node_modules", ".ipynb_checkpoints", ".singfactory", ".cache", ".eggs", "build", "dist", ".idea", ".vscode"}
)
_SECRET = (".env", ".netrc", ".pypirc", "id_rsa", "id_ed25519", ".git-credentials")


def own_code(project: Path, folder: str) -> OwnCode:
    """Return where the packages of a folder in the project are: in its ``src``, or in the folder itself."""
    place = project / folder
    source = "src" if (place / "src").is_dir() else "."
    path = place / "pyproject.toml"
    builds = path.is_file() and Toml(path).at("build-system") is not None
    return OwnCode(folder, source, builds or (place / "setup.py").is_file())


def files_of(project: Path, tracked: Callable[[Path], frozenset[str] | None]) -> tuple[str, ...]:
    """Return the files of a project to copy into an image, relative to it.

    tracked: returns the files in git below a folder; None if it is in no repository: then all files are copied that are
    no caches or secrets. Links are left out if they lead out of the project. Raises UsageError if there are too many.
    """
    known = tracked(project)
    found, size = list[str](), 0
    largest: list[tuple[int, str]] = []
    for name in sorted(known) if known is not None else _walk(project):
        path = project / name
        try:
            status = path.stat()
        except OSError:
            continue  # removed, but not yet in git's index
        if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(project.resolve()):
            continue
        if path.name in _SECRET:
            continue
        found.append(name)
        size += status.st_size
        largest.append((status.st_size, name))
        if len(found) > _MOST_FILES or size > _LARGEST:
            heavy = ", ".join(f"{name} ({readable_size(bytes_)})" for bytes_, name in sorted(largest, reverse=True)[:3])
            raise UsageError(
                f"{project} is too large for an image: more than {readable_size(_LARGEST)} or {_MOST_FILES} files",
                why=f"the largest: {heavy}",
                fix="remove data from the folder or from git, or leave out --include-code and bind the project",
            )
    return tuple(found)


def _walk(project: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(project):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.endswith(".egg-info"))
        for name in sorted(names):
            if not name.endswith((".pyc", ".pyo")):
                yield (Path(folder) / name).relative_to(project).as_posix()

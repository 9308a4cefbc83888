"""Resolve paths in a recipe's folder, and refuse links that leave it.

A recipe can come from an untrusted pull request, and a link in it can point anywhere on the machine. So every path
that a recipe names is resolved by this module, at the moment of its use.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path, PurePosixPath

from factory.io.plain import NotPlainError, read_plain

_MOST_LINKS = 40  # the limit of Linux
LIMIT = 256_000  # bytes of recipe.toml, base.lock or a definition; Apptainer itself takes 64 KiB a section


class UnusableError(ValueError):
    """A file of a recipe cannot be used. The text continues its name: ``is a pipe``, ``cannot be read: …``."""


class LeavesFolderError(UnusableError):
    """A path is absolute, leaves the folder by .., or passes a link that does. The text says which."""


def resolve_inside(folder: Path, relative: str) -> Path:
    """Return the path below folder with all links resolved; the last part need not exist.

    Every step of every link must stay inside: a link that leaves the folder and comes back works only on the
    machine where it was made. Raises LeavesFolderError.
    """
    if PurePosixPath(relative).is_absolute():
        raise LeavesFolderError("is an absolute path")
    waiting = deque(PurePosixPath(relative).parts)
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.popleft()
        if part == "..":
            if not done:
                raise LeavesFolderError("leaves the recipe's folder")
            done.pop()
            continue
        place = folder.joinpath(*done, part)
        if not place.is_symlink():
            done.append(part)
            continue
        links += 1
        target = PurePosixPath(place.readlink())
        if target.is_absolute() or links > _MOST_LINKS:
            link = "/".join([*done, part])
            kind = "a link to an absolute path" if target.is_absolute() else "a link in a loop"
            raise LeavesFolderError(f"is {kind}" if link == relative else f"passes {link}, {kind}")
        waiting.extendleft(reversed(target.parts))
    return folder.joinpath(*done)


def read_inside(folder: Path, relative: str) -> bytes:
    """Return the content of a file below folder. Raises UnusableError, LeavesFolderError, FileNotFoundError."""
    try:
        return read_plain(resolve_inside(folder, relative), LIMIT)
    except FileNotFoundError:
        raise
    except NotPlainError as error:
        raise UnusableError(error.how) from error
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error


def folder_inside(folder: Path, relative: str) -> Path | None:
    """Return the resolved path of a folder below folder; None if there is no such folder.

    Raises LeavesFolderError. Use it for paths that are passed to other programs, which follow any link.
    """
    real = resolve_inside(folder, relative)
    return real if real.is_dir() else None


def leaves(folder: Path, relative: str) -> str:
    """Return why a path leaves the folder, as a continuation of its name; '' if it does not."""
    try:
        resolve_inside(folder, relative)
    except LeavesFolderError as error:
        return str(error)
    return ""

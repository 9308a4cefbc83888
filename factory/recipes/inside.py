"""Follow links inside a recipe's folder, and refuse those that leave it.

A recipe is somebody's pull request, and a link in it may name anything on the machine that reads it. So whatever a
recipe names, or we take from its folder, is reached through this module, at the moment of its use.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path, PurePosixPath

from factory.io.plain import NotPlainError, read_plain

_MOST_LINKS = 40  # what Linux follows before it gives up
LIMIT = 256_000  # bytes of recipe.toml, base.lock or a definition; Apptainer itself takes 64 KiB a section


class UnusableError(ValueError):
    """A file of a recipe cannot be used. The text goes on after its name: ``is a pipe``, ``cannot be read: …``."""


class LeavesFolderError(UnusableError):
    """A path is absolute, climbs out of the folder, or passes a link that does. The text says which."""


def resolve_inside(folder: Path, relative: str) -> Path:
    """The path below folder with every link on the way followed; the end need not exist.

    Each step of each link must stay inside: a link that leaves the folder and comes back works on the
    machine where it was made, and on no other. Raises LeavesFolderError.
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
            kind = "a link to an absolute path" if target.is_absolute() else "a link in a circle"
            raise LeavesFolderError(f"is {kind}" if link == relative else f"passes {link}, {kind}")
        waiting.extendleft(reversed(target.parts))
    return folder.joinpath(*done)


def read_inside(folder: Path, relative: str) -> bytes:
    """The content of a file below folder. Raises UnusableError, LeavesFolderError for one, and FileNotFoundError."""
    try:
        return read_plain(resolve_inside(folder, relative), LIMIT)
    except FileNotFoundError:
        raise
    except NotPlainError as error:
        raise UnusableError(error.how) from error
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error


def folder_inside(folder: Path, relative: str) -> Path | None:
    """Where a folder below folder really is; None when nothing has that name, or it is a file.

    Raises LeavesFolderError. For what is handed to other programs: they follow links wherever those lead.
    """
    real = resolve_inside(folder, relative)
    return real if real.is_dir() else None


def leaves(folder: Path, relative: str) -> str:
    """Why a path leaves the folder, to go on after its name; '' when it does not."""
    try:
        resolve_inside(folder, relative)
    except LeavesFolderError as error:
        return str(error)
    return ""

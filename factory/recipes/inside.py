"""Follow links inside a recipe's folder, and refuse those that leave it."""

from __future__ import annotations

from collections import deque
from pathlib import Path, PurePosixPath

_MOST_LINKS = 40  # what Linux follows before it gives up


class LeavesFolderError(ValueError):
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

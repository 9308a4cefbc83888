"""The folder that a Dockerfile copies from, as Docker sees it: without what `.dockerignore` leaves out.

Everything is looked up when a Dockerfile is translated. Nothing outside of the folder is read, and the number of files
is limited.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from factory.recipes.dockerfile.globs import MAGIC, PatternError, part
from factory.recipes.dockerfile.ignore import FILE as IGNORE
from factory.recipes.dockerfile.ignore import Ignore
from factory.recipes.dockerfile.ignore import read as read_ignore
from factory.recipes.inside import UnusableError, resolve_inside
from factory.recipes.model import Place, Problem, ProblemError

NOTHING = Ignore(())
_MOST_FILES = 100_000
_LOST_BITS = 0o7002  # of a mode; the engine copies without them


@dataclass(frozen=True)
class Link:
    """A symbolic link in the context. path: relative to the context. target: as it is written in the link."""

    path: str
    target: str


@dataclass(frozen=True)
class Entry:
    """A file or folder of the context. path: relative to it, '.' for the context itself. mode: its permission bits."""

    path: str
    is_folder: bool
    mode: int

    @property
    def name(self) -> str:
        """The last part of the path, '' for the context itself."""
        return PurePosixPath(self.path).name


@dataclass
class Content:
    """What COPY takes of a folder.

    whole: the folders and files that are copied completely. links: those in folders, which an engine would replace
    by their targets. folders: those of which only a part is copied. odd: those with modes that the engine changes.
    """

    whole: list[Entry] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    folders: list[Entry] = field(default_factory=list)
    odd: list[Entry] = field(default_factory=list)


class Tree:
    """The build context: a folder, and its `.dockerignore`.

    dockerfile: its name, for the file NAME.dockerignore, which comes first. Raises ProblemError for an unusable one.
    """

    def __init__(self, folder: Path, dockerfile: str = "Dockerfile") -> None:
        self.folder = folder
        self._ignored = read_ignore(folder, dockerfile)
        self._left = _MOST_FILES

    def find(self, source: str, place: Place, exclude: Ignore = NOTHING) -> tuple[Entry, ...]:
        """Return what a source of COPY or ADD matches, sorted. Raises ProblemError if there is nothing."""
        wanted = str(PurePosixPath(source.lstrip("/") or "."))
        if ".." in PurePosixPath(wanted).parts:
            raise ProblemError(Problem(place, f"{source} leaves the build context", "copy the file into the context"))
        if MAGIC.search(wanted):
            found = self._matching(wanted, place)
        else:
            found = [entry] if (entry := self._entry(wanted, place)) else []
        kept = [entry for entry in found if not self._is_left_out(entry, exclude, place)]
        if not kept:
            ignored = f"{self._ignored.path.name if self._ignored.path else IGNORE} leaves it out"
            why = ignored if found else f"it is not in {self.folder}"
            remedy = "create it, correct its name, or name the build context: --context FOLDER"
            raise ProblemError(Problem(place, f"there is no {source} to copy: {why}", remedy))
        return tuple(sorted(kept, key=lambda entry: entry.path))

    def content(self, entry: Entry, place: Place, exclude: Ignore = NOTHING) -> Content:
        """Return what COPY takes of a file or folder. Raises ProblemError for a pipe, a socket or a device."""
        found = Content()
        if not entry.is_folder:
            found.whole.append(entry)
            found.odd += [entry] if entry.mode & _LOST_BITS else []
            return found
        self._walk(entry, place, exclude, found)
        return found

    def _walk(self, entry: Entry, place: Place, exclude: Ignore, found: Content) -> bool:
        """Add the content of a folder. Returns whether all of it is copied, and as it is."""
        mine = Content()
        complete = True
        for name in sorted(os.listdir(self.folder / entry.path)):  # noqa: PTH208 - names, not paths
            self._step(place)
            path = name if entry.path == "." else f"{entry.path}/{name}"
            target = self.folder / path
            info = target.lstat()
            left_out = self._ignored.hides(path) or exclude.hides(path)
            if stat.S_ISDIR(info.st_mode):
                child = Entry(path, is_folder=True, mode=stat.S_IMODE(info.st_mode))
                inner = Content()
                whole = self._walk(child, place, exclude, inner)
                if left_out and not _has_any(inner, child, target):
                    complete = False
                    continue
                mine.odd += [child] if child.mode & _LOST_BITS else []
                complete = complete and whole and not left_out
                mine.odd += inner.odd
                mine.links += inner.links
                if whole and not left_out:
                    mine.whole.append(child)
                else:
                    mine.whole += inner.whole
                    mine.folders += [child, *inner.folders]
            elif left_out:
                complete = False
            elif stat.S_ISLNK(info.st_mode):
                mine.links.append(Link(path, str(target.readlink())))
                complete = False
            elif stat.S_ISREG(info.st_mode):
                child = Entry(path, is_folder=False, mode=stat.S_IMODE(info.st_mode))
                mine.whole.append(child)
                mine.odd += [child] if child.mode & _LOST_BITS else []
            else:
                raise ProblemError(Problem(place, f"{path} is neither a file nor a folder", "remove it"))
        found.odd += mine.odd
        found.links += mine.links
        if complete:
            found.whole.append(entry)
        else:
            found.whole += mine.whole
            found.folders += mine.folders
        return complete

    def _step(self, place: Place) -> None:
        self._left -= 1
        if self._left < 0:
            message = f"the build context has more than {_MOST_FILES} files"
            raise ProblemError(Problem(place, message, f"copy single folders, or leave files out in {IGNORE}"))

    def _entry(self, path: str, place: Place) -> Entry | None:
        try:
            real = resolve_inside(self.folder, path)
            info = real.lstat()
        except FileNotFoundError:
            return None
        except (UnusableError, OSError) as error:
            raise ProblemError(Problem(place, f"{path} {_text(error)}", "put the file into the context")) from error
        if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
            raise ProblemError(Problem(place, f"{path} is neither a file nor a folder", "remove it"))
        return Entry(path, stat.S_ISDIR(info.st_mode), stat.S_IMODE(info.st_mode))

    def _matching(self, source: str, place: Place) -> list[Entry]:
        """Return the entries that match a pattern, part by part."""
        found = ["."]
        parts = PurePosixPath(source).parts
        for one in parts:
            try:
                pattern = part(one)
            except PatternError as error:
                raise ProblemError(Problem(place, f"{source} {error}", "correct the pattern")) from error
            found = [path for above in found for path in self._children(above, place) if pattern.match(_name(path))]
        return [entry for path in found if (entry := self._entry(path, place))]

    def _children(self, path: str, place: Place) -> Iterator[str]:
        folder = self._entry(path, place)
        if folder is None or not folder.is_folder:
            return
        for name in os.listdir(resolve_inside(self.folder, path)):  # noqa: PTH208 - names, not paths
            self._step(place)
            yield name if path == "." else f"{path}/{name}"

    def _is_left_out(self, entry: Entry, exclude: Ignore, place: Place) -> bool:
        if entry.path == "." or not (self._ignored.hides(entry.path) or exclude.hides(entry.path)):
            return False
        if not entry.is_folder:
            return True
        inner = Content()
        self._walk(entry, place, exclude, inner)
        return not _has_any(inner, entry, self.folder / entry.path)


def _has_any(content: Content, entry: Entry, path: Path) -> bool:
    """Return whether anything is copied of a folder that is left out itself."""
    if content.whole == [entry]:
        return any(path.iterdir())
    return bool(content.whole or content.links or content.folders)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, UnusableError) else f"cannot be read: {getattr(error, 'strerror', error)}"

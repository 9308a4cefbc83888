"""Folders that others may write: what is done in one goes by its descriptor, whatever its name means by now.

A path is looked up anew by each system call. Who may write a folder on the way can put a link in its place between two
of them, and the second one works elsewhere: in the home of whoever runs this. A descriptor cannot be led away. So one
folder is opened by its path, the root that is trusted by name; each folder below it is opened from the one above,
links refused (openat(2) with O_NOFOLLOW and O_DIRECTORY), and all that happens to an entry names it below a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from factory.errors import FactoryError, IntegrityFailure, PlaceUnusable
from factory.io import files, plain, private
from factory.io.rights import is_unmapped

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}  # answers where there are no links
_MOST_LINKS = 40  # as the kernel
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A folder that is held open. path: what it was called then, for people. Close it, or use it in a with block."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder that a path names now. Raises OSError. For a path that no stranger can lead elsewhere."""
        return cls(path, _readable(path, os.O_DIRECTORY | os.O_CLOEXEC, None))

    @classmethod
    def reach(cls, path: Path) -> Folder:
        """A folder to write to, made with those on the way to it where they are missing.

        For a path on which others may write: it is opened step by step, and links are followed where they belong to
        this user or to root. Raises IntegrityFailure for other links, PlaceUnusable for a file in the way, OSError.
        """
        at = cls.at(Path("/"))
        left = [*reversed(path.absolute().parts[1:])]
        links = 0
        try:
            while left:
                name = left.pop()
                target = None if name == ".." else at._target(name)  # noqa: SLF001 - of this class
                if target is not None:
                    links += 1
                    _refuse_circle(path, links)
                    left += [part for part in reversed(target.parts) if part != "/"]
                if target is None or target.is_absolute():
                    before, at = at, cls.at(Path("/")) if target is not None else at._step(name)  # noqa: SLF001 - same
                    before.close()
        except BaseException:
            at.close()
            raise
        return at

    def _target(self, name: str) -> PurePosixPath | None:
        """Where a link leads that somebody trusted has made; None for what is no link."""
        try:
            step = os.open(_entry(name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(step)
            if not stat.S_ISLNK(found.st_mode):
                return None
            if found.st_uid not in (0, os.geteuid()) and not is_unmapped(found.st_uid):
                raise IntegrityFailure(
                    f"{self.path / name} is a symbolic link, refused",
                    why=f"it belongs to user id {found.st_uid}, who decides where it leads",
                    fix="name the folder itself that you want to write to",
                )
            return PurePosixPath(os.readlink("", dir_fd=step))
        finally:
            os.close(step)

    def _step(self, name: str) -> Folder:
        if name == "..":
            return Folder(self.path.parent, _readable(Path(".."), _FOLDER, self.descriptor))
        try:
            return self._enter(name)
        except FileNotFoundError:
            return self._made(name, 0o755)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go."""
        os.close(self.descriptor)

    def below(self, *names: str) -> Folder:
        """A folder that is there. Raises FileNotFoundError; IntegrityFailure for a link, PlaceUnusable for a file."""
        return self._walk(names, lambda at, name: at._enter(name))  # noqa: SLF001 - of this class

    def make(self, *names: str, mode: int | None = None) -> Folder:
        """A folder, made with those on the way to it where they are missing; mode None: each as open as this one.

        Who shares this one (mode 2775, say) shares what comes below it. Folders of ours that a kill left before they
        were opened are opened now. Raises as ``below`` does, and NotPermitted where this user may not write.
        """
        mine = self.mode() if mode is None else mode
        return self._walk(names, lambda at, name: at._made(name, mine))  # noqa: SLF001 - of this class

    def _walk(self, names: tuple[str, ...], step: Callable[[Folder, str], Folder]) -> Folder:
        at = Folder(self.path, os.dup(self.descriptor))
        for name in names:
            with at:
                at = step(at, name)
        return at

    def _enter(self, name: str, mode: int = 0) -> Folder:
        """A folder in this one; when it is ours, it gets at least these rights.

        By a descriptor that needs no rights on it (O_PATH, open(2)): under some umasks its owner has none at first.
        """
        try:
            handle = os.open(_entry(name), _FOLDER | os.O_PATH, dir_fd=self.descriptor)
        except NotADirectoryError as error:
            raise self._in_the_way(name) from error
        try:
            if mode:
                files.open_up(handle, mode)
            return Folder(self.path / name, _readable(Path(), _FOLDER, handle))
        finally:
            os.close(handle)

    def _made(self, name: str, mode: int) -> Folder:
        with files.explained(self.path / name):
            try:
                os.mkdir(_entry(name), mode & 0o777, dir_fd=self.descriptor)
            except FileExistsError:
                return self._enter(name, mode)
            made = self._enter(name, mode)
            self.sync()
            return made

    def _in_the_way(self, name: str) -> FactoryError:
        path = self.path / name
        with contextlib.suppress(OSError):
            found = self.stat(name)
            if stat.S_ISLNK(found.st_mode):
                return IntegrityFailure(
                    f"{path} is a symbolic link, refused",
                    why=f"it belongs to user id {found.st_uid}; folders below a store or a registry are never links",
                    fix="remove it after finding out who made it; link a store or a registry as a whole, or not at all",
                )
        return PlaceUnusable(f"{path} is in the way", why="it is not a folder", fix="move it, or name another place")

    def sync(self) -> None:
        """Make its entries durable, where the file system can."""
        files.sync_open_folder(self.descriptor)

    def named(self, name: str) -> Entry:
        """An entry of this folder, whether it is there or not."""
        return Entry(self, name)

    def names(self) -> list[str]:
        """What is in it, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 - of a descriptor

    def stat(self, name: str) -> os.stat_result:
        """What an entry is; of a link, the link."""
        return os.stat(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)

    def mode(self) -> int:
        """Its rights, and the bits for user, group and sticky."""
        return stat.S_IMODE(os.fstat(self.descriptor).st_mode)

    def read_whole(self, name: str, limit: int) -> bytes:
        """As factory.io.plain.read_plain."""
        return plain.read_plain(self.path / _entry(name), limit, dir_fd=self.descriptor)

    def read(self, name: str, limit: int) -> tuple[bytes, float]:
        """As factory.io.plain.read_start."""
        return plain.read_start(self.path / _entry(name), limit, dir_fd=self.descriptor)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """As factory.io.plain.opened."""
        with plain.opened(self.path / _entry(name), dir_fd=self.descriptor) as descriptor:
            yield descriptor

    def update(self, name: str) -> contextlib.AbstractContextManager[FileIO]:
        """As factory.io.private.open_for_update."""
        return private.open_for_update(self.path / _entry(name), dir_fd=self.descriptor)

    def create(self, name: str, mode: int = 0o644, *, sync: bool = True) -> contextlib.AbstractContextManager[BinaryIO]:
        """As factory.io.files.create."""
        return files.create(self.path / _entry(name), mode, dir_fd=self.descriptor, sync=sync)

    def write(self, name: str, content: bytes | str, mode: int = 0o644) -> None:
        """As factory.io.files.atomic_write."""
        data = content.encode() if isinstance(content, str) else content
        with self.temporary(name) as temporary:
            with self.create(temporary, mode) as file:
                file.write(data)
            self.rename(temporary, self, name)

    @contextlib.contextmanager
    def temporary(self, prefix: str) -> Iterator[str]:
        """A unique name for a new file; whatever has it when the block ends is removed."""
        name = f".{prefix}.{os.getpid()}.{secrets.token_hex(6)}"
        try:
            yield name
        finally:
            self.remove(name)

    def rename(self, name: str, to: Folder, new: str) -> None:
        """Give an entry its place in a folder, over what has that name, and make the change durable."""
        with files.explained(to.path / new):
            os.replace(_entry(name), _entry(new), src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)
            to.sync()

    def move(self, name: str, new: str) -> None:
        """Give an entry another name in this folder; a kill of the machine may undo that. Raises OSError."""
        os.replace(_entry(name), _entry(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def link(self, name: str, target: str) -> bool:
        """Make an entry a symbolic link to target, replacing an older link in one step.

        Returns False if the file system has no symbolic links.
        """
        with files.explained(self.path / name), self.temporary(name) as temporary:
            try:
                os.symlink(target, temporary, dir_fd=self.descriptor)
            except OSError as error:
                if error.errno in NO_LINKS:
                    return False
                raise
            self.rename(temporary, self, name)
        return True

    def links_to(self, name: str) -> str | None:
        """What a symbolic link in this folder says; None when there is none of that name."""
        with contextlib.suppress(OSError):
            return os.readlink(_entry(name), dir_fd=self.descriptor)
        return None

    def second_name(self, name: str, new: str) -> None:
        """Give a file of this folder another name in it. Raises FileExistsError and any other OSError."""
        here = self.descriptor
        os.link(_entry(name), _entry(new), src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)

    def bring(self, source: Path, new: str) -> None:
        """Give a file that lies anywhere a name in this folder. Raises OSError."""
        os.link(source, _entry(new), dst_dir_fd=self.descriptor, follow_symlinks=False)

    def touch(self, name: str) -> None:
        """Give an entry the present time; a link itself, not what it leads to."""
        os.utime(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Remove a file or link; nothing when it is not there."""
        files.remove_file(self.path / _entry(name), dir_fd=self.descriptor)


class Entry(NamedTuple):
    """A name in a folder that is held open."""

    folder: Folder
    name: str

    @property
    def path(self) -> Path:
        """For people, and for who only reads what is verified afterwards."""
        return self.folder.path / self.name

    def remove(self) -> None:
        """Remove it, when it is there."""
        self.folder.remove(self.name)

    def rename(self, to: Entry) -> None:
        """Give it another place, durably; see Folder.rename."""
        self.folder.rename(self.name, to.folder, to.name)

    def update(self) -> contextlib.AbstractContextManager[FileIO]:
        """As factory.io.private.open_for_update."""
        return self.folder.update(self.name)


def make_way(path: Path, mode: int = 0o755) -> None:
    """Make a folder, and those above it that are missing, where no stranger decides what the first of them means.

    As factory.io.files.make_folder, but no link that appears meanwhile is followed.
    """
    with files.explained(path):
        there = next(place for place in (path, *path.parents) if place.exists())
        with Folder.at(there) as folder, folder.make(*path.relative_to(there).parts, mode=mode):
            pass


def entries(path: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing when that is a link, or not there."""
    return sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []


def _refuse_circle(path: Path, links: int) -> None:
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _entry(name: str) -> str:
    """A name that cannot lead anywhere else."""
    if not name or name in (".", "..") or "/" in name:
        raise ValueError(f"{name!r} is no name of an entry")
    return name


def _readable(path: Path, flags: int, dir_fd: int | None) -> int:
    """Open a folder; one that may only be passed through has no entries to list, and is no less a way."""
    try:
        return os.open(path, flags | os.O_RDONLY, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags | os.O_PATH, dir_fd=dir_fd)

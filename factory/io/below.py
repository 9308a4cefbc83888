"""Safe work in folders that other users may write to: every operation is relative to an open descriptor.

The kernel resolves a path again in every system call. Between two calls, anyone who may write to a folder on the path
can replace it with a link, and redirect the second call to another place, such as the home of the user who runs this.
A descriptor cannot be redirected. So only the trusted top folder is opened by path. Each folder below it is opened
relative to its parent, links are refused (openat(2) with O_NOFOLLOW and O_DIRECTORY), and entries are named relative
to the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from factory.errors import FactoryError, IntegrityFailure, PlaceUnusable
from factory.io import files, modes, plain, private
from factory.io.rights import group_writes, is_unmapped

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}  # errors where links are not supported
_MOST_LINKS = 40  # the kernel's limit
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700  # the permissions that the owner of a folder needs


class Folder:
    """An open folder. path: its name when it was opened, for messages. Close it, or use it in a with block.

    shared: whether new entries, and those of folders below, are as open as asked for. Otherwise the umask applies.
    """

    def __init__(self, path: Path, descriptor: int, *, shared: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.shared = shared

    @classmethod
    def at(cls, path: Path) -> Folder:
        """Open a folder by a path that untrusted users cannot redirect. Raises OSError."""
        return cls(path, _readable(path, os.O_DIRECTORY | os.O_CLOEXEC, None))

    def share(self) -> Folder:
        """Set ``shared`` if users other than the owner may write this folder, and return it.

        A user's private group does not count, unless the folder passes its group on (S_ISGID).
        """
        found = os.fstat(self.descriptor)
        by_group = found.st_mode & stat.S_ISGID or group_writes(found, f"/proc/self/fd/{self.descriptor}")
        self.shared |= bool(found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and by_group))
        return self

    def masked(self, mode: int) -> int:
        """Return the mode of a new entry for which this mode was asked."""
        return mode if self.shared else modes.masked(mode)

    @classmethod
    def reach(cls, path: Path) -> Folder:
        """Open a folder to write to, creating it and its parents where they are missing.

        For a path that others may write to: it is opened step by step, and only links owned by this user or root are
        followed. Raises IntegrityFailure for other links, PlaceUnusable for a file in the way, OSError.
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
        """Return the target of a link made by a trusted user, or None if the entry is not a link."""
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
                    why=f"it belongs to user id {found.st_uid}, who controls its target",
                    fix="name the folder itself instead of the link",
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
        """Close the descriptor."""
        os.close(self.descriptor)

    def below(self, *names: str) -> Folder:
        """Open an existing folder. Raises FileNotFoundError; IntegrityFailure for a link; PlaceUnusable for a file."""
        return self._walk(names, lambda at, name: at._enter(name))  # noqa: SLF001 - of this class

    def make(self, *names: str, mode: int | None = None) -> Folder:
        """Open a folder below, creating it and its parents where they are missing. mode None: the mode of this folder.

        The umask applies unless this folder is shared. There, a folder that a killed process left without its final
        mode is corrected. Raises like ``below``, and NotPermitted if this user may not write.
        """
        mine = self.mode() if mode is None else mode
        return self._walk(names, lambda at, name: at._made(name, mine))  # noqa: SLF001 - of this class

    def _walk(self, names: tuple[str, ...], step: Callable[[Folder, str], Folder]) -> Folder:
        at = Folder(self.path, os.dup(self.descriptor), shared=self.shared)
        for name in names:
            with at:
                at = step(at, name)
        return at

    def _enter(self, name: str, mode: int = 0) -> Folder:
        """Open a folder in this one. If it belongs to this user, add the permissions in mode.

        This uses an O_PATH descriptor, which needs no permissions (open(2)): under some umasks the owner of a new
        folder has none at first.
        """
        try:
            handle = os.open(_entry(name), _FOLDER | os.O_PATH, dir_fd=self.descriptor)
        except NotADirectoryError as error:
            raise self._in_the_way(name) from error
        try:
            if mode:
                files.open_up(handle, mode)
            return Folder(self.path / name, _readable(Path(), _FOLDER, handle), shared=self.shared)
        finally:
            os.close(handle)

    def _made(self, name: str, mode: int) -> Folder:
        with files.explained(self.path / name):
            try:
                os.mkdir(_entry(name), mode & 0o777, dir_fd=self.descriptor)
            except FileExistsError:
                return self._enter(name, mode if self.shared else _OWNER)
            made = self._enter(name, self.masked(mode))
            self.sync()
            return made

    def _in_the_way(self, name: str) -> FactoryError:
        path = self.path / name
        with contextlib.suppress(OSError):
            found = self.stat(name)
            if stat.S_ISLNK(found.st_mode):
                return IntegrityFailure(
                    f"{path} is a symbolic link, refused",
                    why=f"it belongs to user id {found.st_uid}; links inside a store or registry folder are refused",
                    fix="find out who made it, then remove it; only the store or registry folder itself may be a link",
                )
        return PlaceUnusable(f"{path} is in the way", why="it is not a folder", fix="move it, or name another folder")

    def sync(self) -> None:
        """Make its entries durable, if the file system supports that."""
        files.sync_open_folder(self.descriptor)

    def named(self, name: str) -> Entry:
        """Return an entry of this folder, which need not exist."""
        return Entry(self, name)

    def names(self) -> list[str]:
        """Return the names of its entries, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 - of a descriptor

    def stat(self, name: str) -> os.stat_result:
        """Return the stat result of an entry, without following a link."""
        return os.stat(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)

    def mode(self) -> int:
        """Return its permission bits, including set-user-ID, set-group-ID, and sticky."""
        return stat.S_IMODE(os.fstat(self.descriptor).st_mode)

    def read_whole(self, name: str, limit: int) -> bytes:
        """See factory.io.plain.read_plain."""
        return plain.read_plain(self.path / _entry(name), limit, dir_fd=self.descriptor)

    def read(self, name: str, limit: int) -> tuple[bytes, float]:
        """See factory.io.plain.read_start."""
        return plain.read_start(self.path / _entry(name), limit, dir_fd=self.descriptor)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """See factory.io.plain.opened."""
        with plain.opened(self.path / _entry(name), dir_fd=self.descriptor) as descriptor:
            yield descriptor

    def update(self, name: str) -> contextlib.AbstractContextManager[FileIO]:
        """See factory.io.private.open_for_update."""
        return private.open_for_update(self.path / _entry(name), dir_fd=self.descriptor)

    def create(self, name: str, mode: int = 0o644, *, sync: bool = True) -> contextlib.AbstractContextManager[BinaryIO]:
        """See factory.io.files.create. The umask applies unless the folder is shared."""
        return files.create(self.path / _entry(name), mode, dir_fd=self.descriptor, sync=sync, exact=self.shared)

    def write(self, name: str, content: bytes | str, mode: int = 0o644, *, sync: bool = True) -> None:
        """See factory.io.files.atomic_write. sync: False for a file that may be lost if the machine crashes."""
        data = content.encode() if isinstance(content, str) else content
        with self.temporary(name) as temporary:
            with self.create(temporary, mode, sync=sync) as file:
                file.write(data)
            with files.explained(self.path / name):
                self.move(temporary, name)
            if sync:
                self.sync()

    @contextlib.contextmanager
    def temporary(self, prefix: str) -> Iterator[str]:
        """Yield a unique name for a new file. A file that still has this name when the block ends is removed."""
        name = f".{prefix}.{os.getpid()}.{os.urandom(6).hex()}"
        try:
            yield name
        finally:
            self.remove(name)

    def rename(self, name: str, to: Folder, new: str) -> None:
        """Rename an entry to a name in a folder, replacing any file there, and make the change durable."""
        with files.explained(to.path / new):
            os.replace(_entry(name), _entry(new), src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)
            to.sync()

    def move(self, name: str, new: str) -> None:
        """Rename an entry within this folder; the change may be lost if the machine crashes. Raises OSError."""
        os.replace(_entry(name), _entry(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def link(self, name: str, target: str) -> bool:
        """Make an entry a symbolic link to target, atomically replacing an older link.

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
        """Return the target of a symbolic link in this folder, or None if there is no such link."""
        with contextlib.suppress(OSError):
            return os.readlink(_entry(name), dir_fd=self.descriptor)
        return None

    def second_name(self, name: str, new: str) -> None:
        """Make a hard link to a file, within this folder. Raises FileExistsError and any other OSError."""
        here = self.descriptor
        os.link(_entry(name), _entry(new), src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)

    def bring(self, source: Path, new: str) -> None:
        """Make a hard link in this folder to a file anywhere. Raises OSError."""
        os.link(source, _entry(new), dst_dir_fd=self.descriptor, follow_symlinks=False)

    def touch(self, name: str) -> None:
        """Set an entry's times to now, without following a link."""
        os.utime(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Remove a file or link, if it exists."""
        files.remove_file(self.path / _entry(name), dir_fd=self.descriptor)


class Entry(NamedTuple):
    """A name in an open folder."""

    folder: Folder
    name: str

    @property
    def path(self) -> Path:
        """The path, for messages, and for readers that verify the content afterwards."""
        return self.folder.path / self.name

    def remove(self) -> None:
        """Remove it, if it exists."""
        self.folder.remove(self.name)

    def rename(self, to: Entry) -> None:
        """Rename it durably; see Folder.rename."""
        self.folder.rename(self.name, to.folder, to.name)

    def update(self) -> contextlib.AbstractContextManager[FileIO]:
        """See factory.io.private.open_for_update."""
        return self.folder.update(self.name)


def make_way(path: Path, mode: int = 0o755) -> None:
    """Create a folder and its missing parents, below an existing folder that untrusted users cannot redirect.

    Like factory.io.files.make_folder, but does not follow links that appear in the meantime.
    """
    with files.explained(path):
        there = next(place for place in (path, *path.parents) if place.exists())
        with Folder.at(there) as folder, folder.make(*path.relative_to(there).parts, mode=mode):
            pass


def entries(path: Path) -> list[Path]:
    """Return the entries of a folder, sorted; none if it is a link or does not exist."""
    return sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else []


def _refuse_circle(path: Path, links: int) -> None:
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _entry(name: str) -> str:
    """Check that a name is a plain entry of a folder, and return it."""
    if not name or name in (".", "..") or "/" in name:
        raise ValueError(f"{name!r} is not the name of an entry")
    return name


def _readable(path: Path, flags: int, dir_fd: int | None) -> int:
    """Open a folder, with O_PATH if this user may search but not read it."""
    try:
        return os.open(path, flags | os.O_RDONLY, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags | os.O_PATH, dir_fd=dir_fd)

"""The only module that writes, renames, and removes files. A file written here is complete or absent.

The order is always the same: create a unique temporary name next to the final one, write, fsync, rename, fsync the
folder. This is safe on every file system, including NFS and Lustre, and needs no flock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from factory.errors import (
    FactoryError,
    IntegrityFailure,
    MachineFailure,
    NoRoom,
    NotFound,
    NotPermitted,
    PlaceUnusable,
)
from factory.io import modes
from factory.io.copying import copy_range
from factory.io.progress import Advance, ignore
from factory.io.trees import remove_tree
from factory.oci.digest import Digest

BLOCK = 1024 * 1024  # bytes read or written at a time
_COPIED = 64 * BLOCK  # bytes that the kernel copies at a time, between two reports of progress
NOBODY = 65534  # the user ID of nobody, who owns no files
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}


def readable_size(size: int) -> str:
    """Format a number of bytes for display, such as ``433 MB`` (decimal units, like disks and registries)."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:  # noqa: PLR2004 - decimal units
            return f"{amount:.0f} {unit}" if unit in ("B", "kB") or amount >= 100 else f"{amount:.1f} {unit}"  # noqa: PLR2004
        amount /= 1000
    return f"{amount:.1f} TB"


@contextlib.contextmanager
def explained(path: Path, needed: int = 0) -> Iterator[None]:
    """Convert an OSError of the file system to a PlaceUnusable that names the path. needed: bytes still to write."""
    try:
        yield
    except OSError as error:
        refused = storage_error(error, path, needed)
        if refused is None:
            raise
        raise refused from error


def storage_error(error: OSError, path: Path, needed: int = 0) -> FactoryError | None:
    """Return the error to show for a full disk, a missing permission, or a name that is taken; None for any other."""
    if error.errno in NO_SPACE:
        need = f"; {readable_size(needed)} more needed" if needed else ""
        return NoRoom(
            f"no space left to write {path}",
            why=f"{os.strerror(error.errno or 0)}, {readable_space(path)}{need}",
            fix="free some space (singfactory store gc), or name another folder with --store",
        )
    if error.errno in _IN_THE_WAY:
        why = os.strerror(error.errno or 0)
        return PlaceUnusable(f"{path} is in the way", why=why, fix="move it, or name another place (--store, -o)")
    if error.errno in NO_RIGHT:
        return NotPermitted(
            f"no permission to write {path}",
            why=os.strerror(error.errno or 0),
            fix="ask the owner of the folder, or name another place (--store, -o)",
        )
    return None


def system_error(error: OSError, path: Path) -> FactoryError:
    """Return the error to show for any OSError raised while using ``path``."""
    why = error.strerror or ""
    if isinstance(error, PermissionError):  # not from writing, which goes through ``explained``
        return NotPermitted(f"no permission to use {path}", why=why, fix="ask its owner")
    if isinstance(error, FileNotFoundError):
        fix = "check the name; if another process has removed it, run the command again"
        return NotFound(f"{path} does not exist", why=why, fix=fix)
    known = storage_error(error, path)
    if known is not None:
        return known
    fix = "try again; if it repeats, the file system or the machine is at fault"
    return MachineFailure(f"{path} cannot be used", why=why or str(error), fix=fix)


def free_space(path: Path) -> int | None:
    """Return how many bytes this user may still write at path or its nearest existing parent.

    None if the file system does not report a size, as with some network file systems and object stores.
    """
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize if found.f_blocks else None
    return None


def readable_space(path: Path) -> str:
    """Return the free space at path for people: ``433 MB free``."""
    free = free_space(path)
    return "free space unknown" if free is None else f"{readable_size(free)} free"


def require_space(path: Path, needed: int, purpose: str) -> None:
    """Raise NoRoom unless ``needed`` bytes are free at path. purpose completes the message, e.g. "to build NAME"."""
    free = free_space(path)
    if free is not None and free < needed:
        raise NoRoom(
            f"not enough space in {path} {purpose}",
            why=f"{readable_size(needed)} needed, {readable_space(path)}",
            fix="free some space, or name a folder on a larger disk",
        )


def make_folder(path: Path, mode: int = 0o755, *, exact: bool = False) -> Path:
    """Create a folder and its missing parents. Existing ones are unchanged.

    The umask takes permissions away from group and others, unless the mode is exact.
    """
    with explained(path):
        missing = [place for place in (path, *path.parents) if not place.exists()]
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                _make_one_folder(place, mode if exact else modes.masked(mode))
    if not path.is_dir():
        raise PlaceUnusable(f"{path} is in the way", why="it is not a folder", fix="move it, or name another folder")
    return path


def _make_one_folder(path: Path, mode: int) -> None:
    path.mkdir(mode & 0o777)
    _open_to(path, mode)
    sync_folder(path.parent)


def _open_to(path: Path, mode: int) -> None:
    """Add permissions to a folder of this user. A link or another user's folder in its place is left alone.

    This uses an O_PATH descriptor, which needs no permissions (open(2)): under some umasks the owner of a new folder
    has none at first.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        open_up(descriptor, mode)
    finally:
        os.close(descriptor)


def open_up(descriptor: int, mode: int) -> None:
    """Add permissions to an open folder, if it belongs to this user."""
    found = os.fstat(descriptor)
    has = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and has & mode != mode:
        with contextlib.suppress(PermissionError):  # the file system has no modes
            Path(f"/proc/self/fd/{descriptor}").chmod(has | mode)


def give_to_nobody(*folders: Path) -> None:
    """Change the owner of folders to the unprivileged user that root runs tests as."""
    for folder in folders:
        os.chown(folder, NOBODY, NOBODY, follow_symlinks=False)


def hand_over(path: Path, owner: int) -> None:
    """Change the owner of a file, or of a folder and its contents, to a user ID and the group ID of that number.

    A negative owner changes nothing.
    """
    if owner < 0:
        return
    with explained(path):
        os.chown(path, owner, owner, follow_symlinks=False)
        for folder, below, names in () if path.is_symlink() else os.walk(path):
            for name in (*below, *names):
                os.chown(Path(folder, name), owner, owner, follow_symlinks=False)


def is_file_itself(path: Path) -> bool:
    """Return whether path is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def take_over(path: Path, owner: int) -> None:
    """Take ownership of a file that an untrusted program has written and can no longer write.

    owner: the user ID that it may belong to, besides this user's. Refuses a link (O_NOFOLLOW), another user's file,
    and a file with a second name. The result is writable only by this user, without set-user-ID bits.
    """
    with explained(path):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in (owner, os.geteuid()):
                raise IntegrityFailure(f"{path} is not the file that was created", why="something else is in its place")
            opened = Path(f"/proc/self/fd/{descriptor}")
            if found.st_uid != os.geteuid():
                os.chown(opened, os.geteuid(), os.getegid())
            opened.chmod(modes.masked(stat.S_IMODE(found.st_mode) & 0o755 | 0o644))
        finally:
            os.close(descriptor)


def copy_tree(source: Path, destination: Path) -> Path:
    """Copy a folder to a new name, keeping modes and links, without sockets, pipes, and devices. Not fsynced."""

    def special(folder: str, names: list[str]) -> list[str]:
        modes = ((name, Path(folder, name).lstat().st_mode) for name in names)
        return [name for name, mode in modes if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]

    with explained(destination):
        import shutil  # noqa: PLC0415 - builds copy trees; `path` and `exec` must start quickly

        shutil.copytree(source, destination, symlinks=True, ignore=special)
    return destination


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable, if the file system supports that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_open_folder(descriptor: int) -> None:
    """Like ``sync_folder``, for an open folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def looked_up(path: Path, dir_fd: int | None) -> Path | str:
    """Return a file's name for a system call: its path, or its name relative to an open folder."""
    return path if dir_fd is None else path.name


@contextlib.contextmanager
def create(
    path: Path, mode: int = 0o644, *, dir_fd: int | None = None, sync: bool = True, exact: bool = False
) -> Iterator[BinaryIO]:
    """Create a file for writing. It is fsynced when the block ends, and removed if the block raises.

    Anything already at path is refused, including a link (O_EXCL|O_NOFOLLOW). The umask takes permissions away from
    group and others, unless the mode is exact. dir_fd: an open descriptor of path's folder (factory.io.below), or None
    to resolve the path. sync: False for a file that may be lost in a crash.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with explained(path):
        descriptor = os.open(looked_up(path, dir_fd), flags, 0o600, dir_fd=dir_fd)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                modes.set_mode(file.fileno(), mode if exact else modes.masked(mode), asked=mode)
                if sync:
                    os.fsync(file.fileno())
        except BaseException:
            remove_file(path, dir_fd=dir_fd)
            raise


@contextlib.contextmanager
def temporary_in(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield a unique name for a new file in folder. A file that still has this name when the block ends is removed."""
    path = folder / f".{prefix}.{os.getpid()}.{os.urandom(6).hex()}"
    try:
        yield path
    finally:
        remove_file(path)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a private folder in parent, and remove it and its contents when the block ends."""
    path = make_folder(parent) / f".{prefix}.{os.getpid()}.{os.urandom(6).hex()}"
    with explained(path):
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove_tree(path)


def atomic_write(path: Path, content: bytes | str, mode: int = 0o644, *, exact: bool = False) -> None:
    """Write a whole file atomically: readers see the old content or the new one. Durable when this returns.

    exact: see ``create``.
    """
    data = content.encode() if isinstance(content, str) else content
    with temporary_in(path.parent, path.name) as temporary:
        with create(temporary, mode, exact=exact) as file:
            file.write(data)
        rename_into_place(temporary, path)


def rename_into_place(temporary: Path, final: Path) -> None:
    """Rename to ``final``, replacing a file there, and make the change durable. ``final`` must not be a folder."""
    with explained(final):
        temporary.replace(final)
        sync_folder(final.parent)


def link_atomically(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to target, atomically replacing an older link."""
    with explained(link), temporary_in(link.parent, link.name) as temporary:
        temporary.symlink_to(target)
        rename_into_place(temporary, link)


def copy_open(reader: BinaryIO, writer: BinaryIO, destination: Path, advance: Advance = ignore) -> None:
    """Copy an open file to another open file. destination: the new file's name, for errors."""
    wanted = os.fstat(reader.fileno()).st_size
    done = 0
    with explained(destination, wanted):
        while count := copy_range(reader.fileno(), writer.fileno(), done, min(max(wanted - done, BLOCK), _COPIED)):
            done += count
            advance(count)


def append_line(path: Path, line: str, *, begins: bytes = b"") -> None:
    """Append a line to a regular file with one write, so that lines of several processes do not mix. Durable on return.

    begins: what the file must begin with, unless it is empty. A last line that a full disk cut off is ended first.
    Links are not followed: in a folder that others may write to, a link could lead to any file of this user. Raises
    NoRoom if the disk took only part of the line, PlaceUnusable for another kind of file. Never blocks on a pipe.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with explained(path):
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket, or a pipe without a reader
                raise _in_the_way(path) from error
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _in_the_way(path)
            if found.st_size and os.pread(descriptor, len(begins), 0) != begins:
                raise _in_the_way(path, "it has other contents")
            ended = not found.st_size or os.pread(descriptor, 1, found.st_size - 1) == b"\n"
            left = (b"" if ended else b"\n") + line.encode() + b"\n"
            while left:  # on a full disk, the second write raises the reason
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _in_the_way(path: Path, why: str = "it is not a regular file") -> PlaceUnusable:
    return PlaceUnusable(f"{path} is in the way", why=why, fix="move it, or name another file")


def remove_file(path: Path, *, dir_fd: int | None = None) -> None:
    """Remove a file or link, if it exists. dir_fd: as for ``create``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(looked_up(path, dir_fd), dir_fd=dir_fd)


def digest_of_open(descriptor: int, advance: Advance = ignore) -> Digest:
    """Return the SHA-256 digest of an open file."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and `path` and `exec` hash nothing

    hasher = hashlib.sha256()
    at = 0
    while block := os.pread(descriptor, BLOCK, at):
        hasher.update(block)
        at += len(block)
        advance(len(block))
    return Digest("sha256", hasher.hexdigest())

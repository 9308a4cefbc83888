"""The only place that writes, renames and removes files. What is written here is complete or absent.

The order is everywhere the same: a unique temporary name beside the final one, the bytes, fsync, rename,
fsync of the folder. File systems without flock, NFS and Lustre included, are safe with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
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
from factory.io.trees import remove_tree
from factory.oci.digest import Digest

BLOCK = 1024 * 1024  # bytes read or written at a time
NOBODY = 65534  # the user id for whom nothing else on a system is writable
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}


def readable_size(size: int) -> str:
    """A number of bytes for people: ``433 MB`` (decimal units, as disks and registries count)."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:  # noqa: PLR2004 - decimal units
            return f"{amount:.0f} {unit}" if unit in ("B", "kB") or amount >= 100 else f"{amount:.1f} {unit}"  # noqa: PLR2004
        amount /= 1000
    return f"{amount:.1f} TB"


@contextlib.contextmanager
def explained(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn what the file system refuses into a PlaceUnusable that names the path; needed: bytes still to come."""
    try:
        yield
    except OSError as error:
        refused = storage_error(error, path, needed)
        if refused is None:
            raise
        raise refused from error


def storage_error(error: OSError, path: Path, needed: int = 0) -> FactoryError | None:
    """The error to show for an OSError of a full disk, of missing rights, or of a name that is taken; else None."""
    if error.errno in NO_SPACE:
        need = f"; {readable_size(needed)} more are needed" if needed else ""
        return NoRoom(
            f"no space left to write {path}",
            why=f"{os.strerror(error.errno or 0)}, {readable_space(path)}{need}",
            fix="free some space (singfactory store gc), or name another place with --store",
        )
    if error.errno in _IN_THE_WAY:
        why = os.strerror(error.errno or 0)
        return PlaceUnusable(f"{path} is in the way", why=why, fix="move it, or name another place (--store, -o)")
    if error.errno in NO_RIGHT:
        return NotPermitted(
            f"not allowed to write {path}",
            why=os.strerror(error.errno or 0),
            fix="ask the owner of the folder, or name another place (--store, -o)",
        )
    return None


def system_error(error: OSError, path: Path) -> FactoryError:
    """The error to show for any OSError that came from using ``path``."""
    why = error.strerror or ""
    if isinstance(error, PermissionError):  # writing goes through ``explained``: this was read or run
        return NotPermitted(f"no permission to use {path}", why=why, fix="ask its owner")
    if isinstance(error, FileNotFoundError):
        fix = "check the name; if another process has removed it, run the command again"
        return NotFound(f"{path} is not there", why=why, fix=fix)
    known = storage_error(error, path)
    if known is not None:
        return known
    fix = "try again; if it repeats, the file system or the machine is at fault"
    return MachineFailure(f"{path} cannot be used", why=why or str(error), fix=fix)


def free_space(path: Path) -> int | None:
    """Return the bytes that this user may still write at path, or at its nearest existing parent.

    None if the file system does not report a size, as some network and object stores.
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
    """Raise NoRoom unless ``needed`` bytes are free at path. purpose ends the sentence, e.g. "to build NAME"."""
    free = free_space(path)
    if free is not None and free < needed:
        raise NoRoom(
            f"not enough space in {path} {purpose}",
            why=f"{readable_size(needed)} needed, {readable_space(path)}",
            fix="free some space, or name a folder on a larger disk",
        )


def make_folder(path: Path, mode: int = 0o755) -> Path:
    """Create a folder and its parents, with this mode whatever the umask is; existing ones stay as they are."""
    with explained(path):
        missing = [place for place in (path, *path.parents) if not place.exists()]
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                _make_one_folder(place, mode)
    if not path.is_dir():
        raise PlaceUnusable(f"{path} is in the way", why="it is not a folder", fix="move it, or name another place")
    return path


def _make_one_folder(path: Path, mode: int) -> None:
    path.mkdir(mode & 0o777)
    _open_to(path, mode)
    sync_folder(path.parent)


def _open_to(path: Path, mode: int) -> None:
    """Give a folder of ours at least these rights; what others have put in its place is left alone.

    By a descriptor that needs no rights on it (O_PATH, open(2)): under some umasks its owner has none at first.
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
    """Give an open folder, when it is ours, at least these rights."""
    found = os.fstat(descriptor)
    has = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and has & mode != mode:
        with contextlib.suppress(PermissionError):  # the file system has no modes
            Path(f"/proc/self/fd/{descriptor}").chmod(has | mode)


def give_to_nobody(*folders: Path) -> None:
    """Hand folders to the unprivileged user that root runs tests as."""
    for folder in folders:
        os.chown(folder, NOBODY, NOBODY, follow_symlinks=False)


def hand_over(path: Path, owner: int) -> None:
    """Hand a file, or a folder with all in it, to a user id and the group of that number; -1: to nobody."""
    if owner < 0:
        return
    with explained(path):
        os.chown(path, owner, owner, follow_symlinks=False)
        for folder, below, names in () if path.is_symlink() else os.walk(path):
            for name in (*below, *names):
                os.chown(Path(folder, name), owner, owner, follow_symlinks=False)


def is_file_itself(path: Path) -> bool:
    """Whether there is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def take_over(path: Path, owner: int) -> None:
    """Make a file that somebody untrusted wrote, and can write no more, a plain file of ours.

    owner: whose it may be now, besides ours. Refuses a link (O_NOFOLLOW), another one's file, and one that has a second
    name: somebody could have kept it open. Whatever its mode was, it sets no user id, and only we may write it.
    """
    with explained(path):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in (owner, os.geteuid()):
                raise IntegrityFailure(
                    f"{path} is not the file that was made", why="something else stands in its place"
                )
            opened = Path(f"/proc/self/fd/{descriptor}")
            if found.st_uid != os.geteuid():
                os.chown(opened, os.geteuid(), os.getegid())
            opened.chmod(stat.S_IMODE(found.st_mode) & 0o755 | 0o644)
        finally:
            os.close(descriptor)


def copy_tree(source: Path, destination: Path) -> Path:
    """Copy a folder to a new name, modes and links as they are; sockets and the like are left out. Not synced."""

    def special(folder: str, names: list[str]) -> list[str]:
        modes = ((name, Path(folder, name).lstat().st_mode) for name in names)
        return [name for name, mode in modes if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]

    with explained(destination):
        shutil.copytree(source, destination, symlinks=True, ignore=special)
    return destination


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable. File systems that cannot are left to their own guarantees."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_open_folder(descriptor: int) -> None:
    """The same for a folder that is open."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def looked_up(path: Path, dir_fd: int | None) -> Path | str:
    """What to call a file in a system call: by its whole path, or by its name below an open folder."""
    return path if dir_fd is None else path.name


@contextlib.contextmanager
def create(path: Path, mode: int = 0o644, *, dir_fd: int | None = None, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a new file for writing; fsynced when the block ends well, removed when it raises.

    Refuses what is already there, links included (O_EXCL|O_NOFOLLOW). The mode does not depend on the umask.
    dir_fd: path's folder, open (factory.io.below); None: it is looked up. sync: False for what may go with the power.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with explained(path):
        descriptor = os.open(looked_up(path, dir_fd), flags, 0o600, dir_fd=dir_fd)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                modes.set_mode(file.fileno(), mode)
                if sync:
                    os.fsync(file.fileno())
        except BaseException:
            remove_file(path, dir_fd=dir_fd)
            raise


@contextlib.contextmanager
def temporary_in(folder: Path, prefix: str) -> Iterator[Path]:
    """A unique name for a new file in folder; whatever is there when the block ends is removed."""
    path = folder / f".{prefix}.{os.getpid()}.{secrets.token_hex(6)}"
    try:
        yield path
    finally:
        remove_file(path)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new private folder in parent, removed with all it holds when the block ends."""
    path = make_folder(parent) / f".{prefix}.{os.getpid()}.{secrets.token_hex(6)}"
    with explained(path):
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove_tree(path)


def atomic_write(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write a whole file: the old content or the new one, nothing between, durable when this returns."""
    data = content.encode() if isinstance(content, str) else content
    with temporary_in(path.parent, path.name) as temporary:
        with create(temporary, mode) as file:
            file.write(data)
        rename_into_place(temporary, path)


def rename_into_place(temporary: Path, final: Path) -> None:
    """Rename over ``final`` and make the change durable. A folder must not exist yet at ``final``."""
    with explained(final):
        temporary.replace(final)
        sync_folder(final.parent)


def link_atomically(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to target, replacing an older link in one step."""
    with explained(link), temporary_in(link.parent, link.name) as temporary:
        temporary.symlink_to(target)
        rename_into_place(temporary, link)


def copy_open(reader: BinaryIO, writer: BinaryIO, destination: Path) -> None:
    """Copy an open file to a new one, which is called destination."""
    wanted = os.fstat(reader.fileno()).st_size
    done = 0
    with explained(destination, wanted):
        while count := copy_range(reader.fileno(), writer.fileno(), done, max(wanted - done, BLOCK)):
            done += count


def append_line(path: Path, line: str) -> None:
    """Add a line to an ordinary file, durable when this returns; in one write, so that lines do not mix.

    No link is followed: in a folder that others write, it could lead to any file of this user's. Raises NoRoom when the
    disk took only a part of it, PlaceUnusable when it is no ordinary file: nothing waits for who reads a pipe.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with explained(path):
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads, a socket
                raise _in_the_way(path) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _in_the_way(path)
            left = line.encode() + b"\n"
            while left:  # the second write of a full disk tells why
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _in_the_way(path: Path) -> PlaceUnusable:
    return PlaceUnusable(f"{path} is in the way", why="it is no ordinary file", fix="move it, or name another place")


def remove_file(path: Path, *, dir_fd: int | None = None) -> None:
    """Remove a file or link; nothing when it is not there. dir_fd: as ``create`` takes it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(looked_up(path, dir_fd), dir_fd=dir_fd)


def digest_of_open(descriptor: int) -> Digest:
    """The SHA-256 digest of an open file, whatever its name means by now."""
    hasher = hashlib.sha256()
    at = 0
    while block := os.pread(descriptor, BLOCK, at):
        hasher.update(block)
        at += len(block)
    return Digest("sha256", hasher.hexdigest())

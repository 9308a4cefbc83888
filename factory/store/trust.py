"""Whose files may become programs: in a store that others share, an image is used only from owners that are trusted.

Who may write in a store's folder can put another file there at any time; using the store means trusting them. Anybody
else's file is refused. What another user has stored is hashed once more before its first use, and that is remembered
by the file's own identity: its change time (ctime) cannot be set, so a file that was written since is hashed again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from factory.digest import Digest
from factory.errors import FactoryError, IntegrityFailure
from factory.io import files

_ROOT = 0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Trust:
    """Which owners are trusted besides this user, root, and who may write in the store; and what is known already.

    owners: user ids. notes: a private folder that remembers what was hashed; None: only this process remembers.
    notice: told before a long hashing.
    """

    owners: frozenset[int] = frozenset()
    notes: Path | None = None
    notice: Callable[[str], None] = lambda _: None
    _hashed: set[str] = field(default_factory=set, compare=False)

    def doubt(self, path: Path, found: os.stat_result, root: Path) -> str:
        """Why a file of the store below root must not be used; '' when it may."""
        if found.st_uid != os.geteuid() and found.st_mode & _WRITABLE_BY_OTHERS:
            return "others than its owner can write it"
        for place, entry in ((path, found), *_folders(path, root)):
            if not self._is_trusted(entry.st_uid, root):
                return f"{place} belongs to {_name(entry.st_uid)}, who is not trusted"
        return ""

    def check(self, path: Path, descriptor: int, digest: Digest, root: Path) -> None:
        """Look at the open file of an image. Raises IntegrityFailure when it must not be used, or has other bytes."""
        found = os.fstat(descriptor)
        why = self.doubt(path, found, root)
        if why:
            raise IntegrityFailure(
                f"the image {path} is not to be trusted",
                why=why,
                fix="name the owner in trusted_owners if you trust what they store, or use a store of your own",
            )
        if found.st_uid != os.geteuid() and not self._was_hashed(digest, found):
            self.notice(f"hashing {path} once: {_name(found.st_uid)} has stored it")
            got = files.digest_of_open(descriptor)
            if got != digest:
                raise IntegrityFailure(
                    f"the image {path} is damaged",
                    why=f"wanted {digest}, got {got}",
                    fix="tell the owner of the store to run: singfactory store verify --repair",
                )
            self._remember(digest, found)

    def _is_trusted(self, owner: int, root: Path) -> bool:
        if owner in (os.geteuid(), _ROOT) or owner in self.owners:
            return True
        folder = root.stat()
        shared = folder.st_mode & stat.S_IWGRP and not folder.st_mode & stat.S_IWOTH
        return owner == folder.st_uid or (bool(shared) and _is_member(owner, folder.st_gid))

    def _was_hashed(self, digest: Digest, found: os.stat_result) -> bool:
        note = _note(digest, found)
        return note in self._hashed or (self.notes is not None and (self.notes / note).exists())

    def _remember(self, digest: Digest, found: os.stat_result) -> None:
        note = _note(digest, found)
        self._hashed.add(note)
        if self.notes is not None:
            with contextlib.suppress(FactoryError, OSError):  # a home that cannot be written costs another hashing
                files.make_folder(self.notes, 0o700)
                files.atomic_write(self.notes / note, b"", 0o600)


def _folders(path: Path, root: Path) -> list[tuple[Path, os.stat_result]]:
    """The folders between a store's own and a file: who owns one can change what lies in it."""
    between = [place for place in path.parents if place != root and place.is_relative_to(root)]
    return [(place, place.lstat()) for place in between]


def _note(digest: Digest, found: os.stat_result) -> str:
    """What tells this file, as it is now, from all others; without st_dev, which differs from node to node."""
    return f"{digest.hex}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def _is_member(user: int, group: int) -> bool:
    import grp  # noqa: PLC0415 - most stores belong to one user
    import pwd  # noqa: PLC0415

    try:
        account = pwd.getpwuid(user)
        return account.pw_gid == group or account.pw_name in grp.getgrgid(group).gr_mem
    except KeyError:
        return False


def _name(user: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user id {user}"

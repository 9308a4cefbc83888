"""Whose files may become programs: in a store that others share, an image is used only from owners that are trusted.

Who may write in a store's folder can put another file there at any time; using the store means trusting them. Anybody
else's file is refused. What others have stored, or could have changed, is hashed before its first use, and that is
remembered by the file's own identity: its change time (ctime) cannot be set, so what is written later is hashed again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from factory.digest import Digest
from factory.errors import FactoryError, IntegrityFailure
from factory.io import files

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SETTLED = 60.0  # seconds since its last change after which a file of somebody else counts as no longer being written
_OVERFLOW = Path("/proc/sys/fs/overflowuid")  # the id of everybody whose real one is not known (user_namespaces(7))


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
    _refused: dict[str, IntegrityFailure] = field(default_factory=dict, compare=False)

    def doubt(self, path: Path, found: os.stat_result, root: Path) -> str:
        """Why a file of the store below root must not be used; '' when it may."""
        if found.st_mode & _OTHERS_WRITE:
            return f"others than its owner can write {path}"
        return self._doubt_of_owner(path, found, root) or self.doubt_of_folders(path, root)

    def doubt_of_folders(self, path: Path, root: Path) -> str:
        """Why nothing at path is safe, whoever owns it: who owns a folder above can change what lies in it."""
        for place in (place for place in path.parents if place != root and place.is_relative_to(root)):
            with contextlib.suppress(FileNotFoundError):
                for found in (place.lstat(), place.stat()):  # of a link: its own owner and its target's
                    if why := self._doubt_of_owner(place, found, root):
                        return why
        return ""

    def check(self, path: Path, descriptor: int, digest: Digest, root: Path, *, hashed: bool) -> None:
        """Look at the open file of an image. Raises IntegrityFailure when it must not be used, or has other bytes.

        hashed: False where its bytes will be hashed anyway before they are used.
        """
        found = os.fstat(descriptor)
        if why := self.doubt(path, found, root):
            raise IntegrityFailure(
                f"the image {path} is not to be trusted",
                why=why,
                fix="name the owner in trusted_owners if you trust what they store, or use a store of your own",
            )
        if not hashed or not self._may_be_changed(found, root) or self._was_hashed(digest, found):
            return
        note = _note(digest, found)
        if note in self._refused:
            raise self._refused[note]
        self.notice(f"hashing {path} once: {_name(found.st_uid)} has stored it")
        got = files.digest_of_open(descriptor)
        if got != digest or _note(digest, os.fstat(descriptor)) != note:
            self._refused[note] = IntegrityFailure(
                f"the image {path} is damaged",
                why=f"wanted {digest}, got {got if got != digest else 'bytes that change meanwhile'}",
                fix="tell the owner of the store to run: singfactory store verify --repair",
            )
            raise self._refused[note]
        settled = time.time() - found.st_ctime > _SETTLED  # who has mapped it may still write without a trace
        self._remember(note, lasting=settled)

    def vouch(self, digest: Digest, found: os.stat_result, root: Path) -> None:
        """This user has just hashed and stored the file: it need not be hashed again."""
        if self._may_be_changed(found, root):
            self._remember(_note(digest, found), lasting=True)

    def _doubt_of_owner(self, place: Path, found: os.stat_result, root: Path) -> str:
        if self._is_trusted(found.st_uid, root):
            return ""
        return f"{place} belongs to {_name(found.st_uid)}, who is not trusted"

    def _is_trusted(self, owner: int, root: Path) -> bool:
        if owner in (os.geteuid(), _ROOT) or owner in self.owners:
            return True
        folder = root.stat()
        anybody_made_it = root.resolve().parent.stat().st_mode & stat.S_IWOTH
        if owner == _nobody() or (anybody_made_it and folder.st_uid not in (os.geteuid(), _ROOT, *self.owners)):
            return False
        shared = folder.st_mode & stat.S_IWGRP and not folder.st_mode & stat.S_IWOTH
        return owner == folder.st_uid or (bool(shared) and _is_member(owner, folder.st_gid))

    @staticmethod
    def _may_be_changed(found: os.stat_result, root: Path) -> bool:
        """Whether somebody else could have put other bytes there."""
        return found.st_uid != os.geteuid() or bool(root.stat().st_mode & _OTHERS_WRITE)

    def _was_hashed(self, digest: Digest, found: os.stat_result) -> bool:
        note = _note(digest, found)
        if note in self._hashed:
            return True
        with contextlib.suppress(OSError):
            return self.notes is not None and _is_private(self.notes) and (self.notes / note).exists()
        return False

    def _remember(self, note: str, *, lasting: bool) -> None:
        self._hashed.add(note)
        if lasting and self.notes is not None:
            with contextlib.suppress(FactoryError, OSError):  # a home that cannot be written costs another hashing
                nearest = next(place for place in self.notes.parents if place.exists())
                if nearest.stat().st_uid == os.geteuid():  # not in another's home, as with sudo
                    files.make_folder(self.notes.parent)
                    files.make_folder(self.notes, 0o700)
                    files.atomic_write(self.notes / note, b"", 0o600)


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _note(digest: Digest, found: os.stat_result) -> str:
    """What tells this file, as it is now, from all others; without st_dev, which differs from node to node."""
    return f"{digest.hex}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def _nobody() -> int:
    try:
        return int(_OVERFLOW.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return files.NOBODY


def _is_member(user: int, group: int) -> bool:
    import pwd  # noqa: PLC0415 - most stores belong to one user

    try:
        account = pwd.getpwuid(user)
        return group in os.getgrouplist(account.pw_name, account.pw_gid)
    except (KeyError, OSError):
        return False


def _name(user: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user id {user}"

"""Whose files may become programs: in a store that others share, an image is used only from owners that are trusted.

Who may write in a store's folder, or could put another folder in its place, can put another file there at any time;
using the store means trusting them. Anybody else's file is refused, and a store whose place strangers decide is not
used at all. What others have stored, or could have changed, is hashed before its first use, and that is remembered by
the file's own identity: its change time (ctime) cannot be set, so what is written later is hashed again.

That protects from what went wrong: a damaged disk, a copy that broke off, a wrong file under a digest's name. It does
not protect from those who are trusted: between the hashing and the moment at which the engine opens the file, whoever
may write its folder can put another one there. Where members of a group should not have to trust each other, one user
fills the store and the others read it (a folder that its group may not write).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure
from factory.io import ancestors, files
from factory.io.ancestors import name_of
from factory.oci.digest import Digest

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SETTLED = 60.0  # seconds since its last change after which a file of somebody else counts as no longer being written
_MAP = Path("/proc/self/uid_map")
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
    _places: dict[Path, str] = field(default_factory=dict, compare=False)

    def doubt(self, path: Path, found: os.stat_result, root: Path) -> str:
        """Why a file of the store below root must not be used; '' when it may."""
        if found.st_mode & _OTHERS_WRITE:
            return f"others than its owner can write {path}"
        return self.doubt_of_place(root) or self._doubt_of_owner(path, found, root) or self.doubt_of_folders(path, root)

    def doubt_of_place(self, root: Path) -> str:
        """Why strangers decide what lies at root, or could; '' when they do not. All folders above it count.

        Trusted there as everywhere: this user, root, trusted_owners. Besides: the owner of root, unless others could
        have made it; the groups of this user where these may write, since they share all that lies there; and who may
        write root itself.
        """
        if root not in self._places:
            why = self._look_above(root)
            if not root.exists():  # somebody may still make it
                return why
            self._places[root] = why
        return self._places[root]

    def _look_above(self, root: Path) -> str:
        try:
            own: os.stat_result | None = root.stat()
        except OSError:
            own = None

        def is_owner(found: os.stat_result) -> bool:
            unknown = found.st_uid == _nobody() and _some_users_are_unknown()
            shares = found.st_mode & stat.S_IWGRP and is_group(found) and _is_member(found.st_uid, found.st_gid)
            return unknown or bool(shares) or (own is not None and found.st_uid == own.st_uid)

        def is_group(found: os.stat_result) -> bool:
            return found.st_gid in (os.getegid(), *os.getgroups()) or is_roots_group(found)

        def is_roots_group(found: os.stat_result) -> bool:
            return own is not None and _is_for_a_group(own) and found.st_gid == own.st_gid

        def is_maker(above: os.stat_result, found: os.stat_result) -> bool:
            anybody = above.st_mode & stat.S_IWOTH
            return not anybody and is_roots_group(above) and _is_member(found.st_uid, above.st_gid)

        return ancestors.doubt(root, trusted=self._is_named, owner=is_owner, group=is_group, maker=is_maker)

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
        self.notice(f"hashing {path} once: {name_of(found.st_uid)} has stored it")
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
        return f"{place} belongs to {name_of(found.st_uid)}, who is not trusted"

    def _is_named(self, owner: int) -> bool:
        return owner in (os.geteuid(), _ROOT) or owner in self.owners

    def _is_trusted(self, owner: int, root: Path) -> bool:
        if self._is_named(owner):
            return True
        folder = root.stat()
        if owner == _nobody() or self.doubt_of_place(root):
            return False
        return owner == folder.st_uid or (_is_for_a_group(folder) and _is_member(owner, folder.st_gid))

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


def _is_for_a_group(root: os.stat_result) -> bool:
    """Whether the store is shared with its group, and with no others."""
    return bool(root.st_mode & stat.S_IWGRP) and not root.st_mode & stat.S_IWOTH


def _some_users_are_unknown() -> bool:
    """Whether this is a user namespace in which owners outside of it, root among them, all look like nobody."""
    try:
        return _MAP.read_text(encoding="ascii").split() != ["0", "0", "4294967295"]
    except OSError:
        return False


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

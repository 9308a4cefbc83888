"""Which owners a shared store trusts: only their images are run.

Anyone who can write a store's folder, or replace a folder above it, can replace an image at any time, so using the
store means trusting them. Files of other owners are refused, and a store whose location an untrusted user controls is
not used at all. An image that another user stored or could have changed is hashed before its first use. The result is
remembered by the file's inode, size and times: the change time (ctime) cannot be set, so a file changed later is
hashed again.

This protects against accidents: a damaged disk, an interrupted copy, a wrong file under a digest's name. It does not
protect against trusted users: between hashing and the moment the engine opens the file, anyone who can write its
folder can replace it. If the members of a group should not have to trust each other, one user fills the store and the
others only read it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure, PlaceUnusable
from factory.io import ancestors, files
from factory.io.ancestors import name_of
from factory.io.owners import mapped_owner
from factory.io.progress import Progress, Silent, step
from factory.oci.digest import Digest

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SETTLED = 60.0  # seconds after its last change until another user's file counts as no longer being written
_MAP = Path("/proc/self/uid_map")
_OVERFLOW = Path("/proc/sys/fs/overflowuid")  # the id that stands for every unmapped user (user_namespaces(7))


@dataclass(frozen=True)
class Trust:
    """The owners trusted in addition to this user, root and those who may write the store; and what was hashed before.

    owners: user ids. notes: a private folder that records which files were hashed; None: kept in memory only.
    progress: shows notices, and files that are hashed.
    """

    owners: frozenset[int] = frozenset()
    notes: Path | None = None
    progress: Progress = field(default_factory=Silent, compare=False)
    _hashed: set[str] = field(default_factory=set, compare=False)
    _refused: dict[str, IntegrityFailure] = field(default_factory=dict, compare=False)
    _places: dict[Path, str] = field(default_factory=dict, compare=False)

    def doubt(self, path: Path, found: os.stat_result, root: Path) -> str:
        """Return why a file of the store at root must not be used, or ''."""
        if found.st_mode & _OTHERS_WRITE:
            return f"users other than its owner can write {path}"
        return self.doubt_of_place(root) or self._doubt_of_owner(path, found, root) or self.doubt_of_folders(path, root)

    def doubt_of_place(self, root: Path) -> str:
        """Return why an untrusted user controls, or could control, the folder at root, or ''. Checks all parents.

        Always trusted: this user, root, trusted_owners. Also trusted here: the owner of root, unless others could have
        created it; this user's groups where they may write, since they share everything there; and anyone who may
        write root itself.
        """
        if root not in self._places:
            why = self._look_above(root)
            if not root.exists():  # not cached: another user may still create it
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
            return unknown or bool(shares) or found.st_uid == (_future_owner(root) if own is None else own.st_uid)

        def is_group(found: os.stat_result) -> bool:
            return found.st_gid in (os.getegid(), *os.getgroups()) or is_roots_group(found)

        def is_roots_group(found: os.stat_result) -> bool:
            return own is not None and _is_for_a_group(own) and found.st_gid == own.st_gid

        def is_maker(above: os.stat_result, found: os.stat_result) -> bool:
            anybody = above.st_mode & stat.S_IWOTH
            return not anybody and is_roots_group(above) and _is_member(found.st_uid, above.st_gid)

        return ancestors.doubt(root, trusted=self._is_named, owner=is_owner, group=is_group, maker=is_maker)

    def mapping_error(self, root: Path) -> FactoryError | None:
        """Return the error for a store on a file system that maps this user to an untrusted owner, or None.

        There this user's own files look like another user's. Trusting that owner means trusting everyone who is mapped.
        """
        owner = _future_owner(root)
        if owner is None or self._is_trusted(owner, root):
            return None
        if replace(self, owners=self.owners | {owner}, _places={}).doubt_of_place(root):  # another doubt remains
            return None
        return PlaceUnusable(
            f"the file system of {root} maps owners: your files belong to {name_of(owner)} there",
            why=f"everyone else who is mapped to {name_of(owner)} can replace your images",
            fix=f'if you trust them all, set trusted_owners = ["{owner}"]; otherwise use another file system',
        )

    def doubt_of_folders(self, path: Path, root: Path) -> str:
        """Return which folder between root and path belongs to an untrusted owner, or ''."""
        for place in (place for place in path.parents if place != root and place.is_relative_to(root)):
            with contextlib.suppress(FileNotFoundError):
                for found in (place.lstat(), place.stat()):  # for a link, its own owner and its target's
                    if why := self._doubt_of_owner(place, found, root):
                        return why
        return ""

    def check(self, path: Path, descriptor: int, digest: Digest, root: Path, *, hashed: bool) -> None:
        """Check an image's open file. Raises IntegrityFailure if its owner is not trusted or its digest is wrong.

        hashed: False if the caller will hash the bytes before they are used.
        """
        found = os.fstat(descriptor)
        if why := self.doubt(path, found, root):
            raise self.mapping_error(root) or IntegrityFailure(
                f"the image {path} is not trusted",
                why=why,
                fix="add the owner to trusted_owners if you trust their images, or use your own store (--store DIR)",
            )
        if not hashed or not self._may_be_changed(found, root) or self._was_hashed(digest, found):
            return
        note = _note(digest, found)
        if note in self._refused:
            raise self._refused[note]
        self.progress.note(f"hashing {path} once: {name_of(found.st_uid)} stored it")
        with step(self.progress, f"hash {digest.short}", found.st_size) as advance:
            got = files.digest_of_open(descriptor, advance)
        if got != digest or _note(digest, os.fstat(descriptor)) != note:
            self._refused[note] = IntegrityFailure(
                f"the image {path} is damaged",
                why=f"expected {digest}, got {got if got != digest else 'a file that changes while it is read'}",
                fix="ask the owner of the store to run: singfactory store verify --repair",
            )
            raise self._refused[note]
        settled = time.time() - found.st_ctime > _SETTLED  # before: a writable mapping may leave ctime unchanged
        self._remember(note, lasting=settled)

    def vouch(self, digest: Digest, found: os.stat_result, root: Path) -> None:
        """Record that this user just hashed and stored the file, so that it is not hashed again."""
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
        if owner == _nobody() or not root.exists() or self.doubt_of_place(root):
            return False
        folder = root.stat()
        return owner == folder.st_uid or (_is_for_a_group(folder) and _is_member(owner, folder.st_gid))

    @staticmethod
    def _may_be_changed(found: os.stat_result, root: Path) -> bool:
        """Return whether another user could have changed the file."""
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
            with contextlib.suppress(FactoryError, OSError):  # if the home is read-only, the file is hashed again
                nearest = next(place for place in self.notes.parents if place.exists())
                if nearest.stat().st_uid == os.geteuid():  # not in another user's home, as under sudo
                    files.make_folder(self.notes.parent)
                    files.make_folder(self.notes, 0o700)
                    files.atomic_write(self.notes / note, b"", 0o600)


def _future_owner(root: Path) -> int | None:
    """Return the owner of what this user creates at root if the file system maps owners; otherwise None."""
    return mapped_owner(next(place for place in (root, *root.parents) if place.is_dir()))


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _note(digest: Digest, found: os.stat_result) -> str:
    """Return a name for this state of this file; without st_dev, which differs between nodes."""
    return f"{digest.hex}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def _is_for_a_group(root: os.stat_result) -> bool:
    """Return whether the store's group may write it, and others may not."""
    return bool(root.st_mode & stat.S_IWGRP) and not root.st_mode & stat.S_IWOTH


def _some_users_are_unknown() -> bool:
    """Return whether this is a user namespace where unmapped owners, possibly root, appear as nobody."""
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
    try:
        account = pwd.getpwuid(user)
        return group in os.getgrouplist(account.pw_name, account.pw_gid)
    except (KeyError, OSError):
        return False

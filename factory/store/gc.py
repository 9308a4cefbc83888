"""Garbage collection: remove images that have no tag, no current or recent use, and no lock file that names them.

The order of steps keeps the store consistent if gc is killed. Under the image's download lock gc moves the file aside,
checks the leases again, removes the tags, then the file. A user of an image takes the lease first and then looks for
the file (factory.store.leases); gc does the opposite, so one of the two always notices. Between the two, the user waits
for gc's lock, so that the file is not away while it is opened. If a kill leaves tags without a file, the next use
fetches the same image again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from factory.errors import Busy, PlaceUnusable
from factory.io import files
from factory.io.below import entries
from factory.io.locks import STALE, holder_in, lock_in
from factory.io.progress import Progress, step
from factory.oci.digest import Digest
from factory.store import leases, pins, squashfs, tags, tried
from factory.store.leases import Lease, Queue
from factory.store.seeds import stale_indexes
from factory.store.store import Store

_WAIT = 60.0  # seconds to wait for another gc, or for a process that writes an image's record
_DAY = 86400.0
_BLOCK = 512  # bytes, the unit of st_blocks
_SHORTEST = 3600.0  # seconds; younger temporary files may belong to running processes


@dataclass(frozen=True)
class Rules:
    """What to keep. Times in seconds, sizes in bytes; None: the rule is off.

    grace: images used this recently stay. patience: how long a lease from another machine counts if its process cannot
    be checked. older_than, max_size: remove tagged images as well, the least recently used first. keep: spare this
    many of each recipe, the most recently used; without the other two, remove the rest. locked: SIF digests and the
    lock files that name them.
    """

    grace: float = _DAY
    patience: float = 7 * _DAY
    older_than: float | None = None
    keep: int | None = None
    max_size: int | None = None
    locked: Mapping[Digest, str] | None = None


@dataclass(frozen=True)
class Verdict:
    """The decision about one file. freed: bytes that its removal frees; name: shown to the user."""

    path: Path
    name: str
    size: int
    freed: int
    why: str
    keep: bool


@dataclass(frozen=True)
class _Blob:
    """An image's file, the tags that name it as (recipe, tag), and its last use in seconds."""

    digest: Digest
    path: Path
    found: os.stat_result
    names: frozenset[tuple[str, str]]
    used: float

    @property
    def shown(self) -> str:
        return ", ".join(f"{recipe}:{tag}" for recipe, tag in sorted(self.names)) or self.digest.short

    def verdict(self, why: str, *, keep: bool) -> Verdict:
        freed = self.found.st_size if self.found.st_nlink <= 1 and not keep else 0
        return Verdict(self.path, self.shown, self.found.st_size, freed, why, keep)


def collect(
    store: Store, rules: Rules, *, queue: Queue | None, dry_run: bool, progress: Progress, now: float | None = None
) -> tuple[Verdict, ...]:
    """Remove what the rules do not keep, and return a verdict for every file. dry_run: decide only, write nothing.

    now: seconds; by default the file system's time. Raises IntegrityFailure if the lease folder is a link, Busy if
    another gc does not finish, NotPermitted if this user may not write the store.
    """
    if not store.root.is_dir():
        return ()
    if dry_run:
        with step(progress, "look through the store"):
            return tuple(_Collector(store, rules, queue, time.time() if now is None else now, progress).plan())
    with store.opened() as root, root.make("locks") as locks, lock_in(locks, "gc.lock", _WAIT, progress):
        clock = leases.refresh(store.root)
        with step(progress, "look through the store"):
            collector = _Collector(store, rules, queue, clock if now is None else now, progress)
        with step(progress, "collect garbage"):
            return tuple(collector.carry_out(verdict) for verdict in collector.plan())


def make_room(
    store: Store,
    needed: int,
    *,
    idle: float,
    queue: Callable[[], Queue | None],
    progress: Progress,
    now: float | None = None,
) -> None:
    """Remove images that nobody uses from a folder of staged copies, which no tag names.

    First those that were not used for ``idle`` seconds; then, the least recently used first, until ``needed`` bytes are
    free. queue: asks SLURM which jobs there are; only if space is short. Raises like ``collect``; now: as there.
    """
    collect(store, Rules(grace=idle, patience=_DAY), queue=None, dry_run=False, progress=progress, now=now)
    if _has_room(store, needed):
        return
    with store.opened() as root, root.make("locks") as locks, lock_in(locks, "gc.lock", _WAIT, progress):
        rules = Rules(grace=0, patience=_DAY)
        clock = leases.refresh(store.root)
        collector = _Collector(store, rules, queue(), clock if now is None else now, progress)
        for blob in sorted(collector.blobs.values(), key=lambda blob: blob.used):
            if not collector.protected(blob):
                collector.carry_out(blob.verdict("its space is needed", keep=False))
            if _has_room(store, needed):
                return


def _has_room(store: Store, needed: int) -> bool:
    free = files.free_space(store.root)
    return free is None or free >= needed


class _Collector:
    """One collection: the state of the store at its start, and the decisions based on it."""

    def __init__(self, store: Store, rules: Rules, queue: Queue | None, now: float, progress: Progress) -> None:
        self.store = store
        self.rules = rules
        self.queue = queue
        self.now = now
        self.progress = progress
        self.leases = leases.read(store.root)
        self.pins = pins.read(store.root)
        self.blobs = {blob.path: blob for blob in self._find()}

    def _find(self) -> Iterator[_Blob]:
        named = tags.names(self.store.root)
        for digest, path in self.store.blobs():
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                names = frozenset(named.get(digest.hex, ()))
                yield _Blob(digest, path, found, names, self._last_use(digest, found.st_ctime, self.leases))

    def _last_use(self, digest: Digest, arrived: float, known: tuple[Lease, ...]) -> float:
        uses = (lease.used for lease in known if lease.sif_digest == digest)
        return max([arrived, *(used for used in uses if used <= self.now + _DAY)])

    def plan(self) -> Iterator[Verdict]:
        """Yield a verdict for every file, in the order they are carried out."""
        kept = {blob.path: why for blob in self.blobs.values() if (why := self.protected(blob))}
        free = [blob for path, blob in self.blobs.items() if path not in kept]
        doomed = {blob.path: "no tag names it" for blob in free if not blob.names}
        chosen = [blob for blob in free if blob.names]
        rest = sum(blob.found.st_size for path, blob in self.blobs.items() if path not in doomed)
        doomed |= self._forgotten(chosen, rest)
        for path, blob in self.blobs.items():
            if path in doomed:
                yield blob.verdict(doomed[path], keep=False)
            else:
                yield blob.verdict(kept.get(path) or f"tagged {blob.shown}", keep=True)
        yield from self._leftovers()

    def protected(self, blob: _Blob) -> str:
        """Return why an image stays regardless of the size and age rules, or ''."""
        lease = self._lease(blob.digest, self.leases)
        if lease is not None:
            return f"in use by {lease}"
        named = (self.rules.locked or {}).get(blob.digest)
        if named is not None:
            return f"locked by {named}"
        pinned = self._pin(blob.digest, self.pins)
        if pinned is not None:
            return f"named by {pinned.file}"
        if self.now - blob.used < self.rules.grace:
            return f"used {_age(self.now - blob.used)} ago"
        holder = self._holder(blob.digest.hex)
        return f"being fetched by {holder}" if holder else ""

    def _lease(self, digest: Digest, known: tuple[Lease, ...]) -> Lease | None:
        alive = (lease for lease in known if lease.sif_digest == digest and self._alive(lease))
        return next(alive, None)

    def _pin(self, digest: Digest, known: tuple[pins.Pin, ...]) -> pins.Pin | None:
        mine = (pin for pin in known if pin.sif_digest == digest)
        return next((pin for pin in mine if pin.holds(self.now, self.rules.patience)), None)

    def _alive(self, lease: Lease) -> bool:
        return leases.is_alive(lease, now=self.now, patience=self.rules.patience, queue=self.queue)

    def _holder(self, name: str) -> str:
        """Return which process fetches the image now, or '' if none does or its lock has not been refreshed."""
        with (
            contextlib.suppress(FileNotFoundError),
            self.store.holding(self.store.root / "locks" / f"{name}.lock") as lock,
        ):
            holder = holder_in(*lock)
            silent = self.now - lock.folder.stat(lock.name).st_mtime > max(self.rules.grace, STALE)
            return str(holder) if holder and not silent else ""
        return ""

    def _forgotten(self, chosen: list[_Blob], total: int) -> dict[Path, str]:
        """Return the tagged images to remove, and why."""
        rules = self.rules
        spared = self._most_recent()
        forgotten: dict[Path, str] = {}
        for blob in sorted((blob for blob in chosen if blob.path not in spared), key=lambda blob: blob.used):
            why = ""
            if rules.older_than is not None and self.now - blob.used > rules.older_than:
                why = f"last used {_age(self.now - blob.used)} ago"
            elif rules.max_size is not None and total > rules.max_size:
                why = f"to get below {files.readable_size(rules.max_size)}; last used {_age(self.now - blob.used)} ago"
            elif rules.keep is not None and rules.older_than is None and rules.max_size is None:
                why = f"not among the {rules.keep} most recently used of its recipe"
            if why:
                forgotten[blob.path] = why
                total -= blob.found.st_size
        return forgotten

    def _most_recent(self) -> set[Path]:
        """Return the images that --keep spares."""
        recipes: dict[str, list[_Blob]] = {}
        for blob in self.blobs.values():
            for recipe in {recipe for recipe, _ in blob.names}:
                recipes.setdefault(recipe, []).append(blob)
        newest = (sorted(blobs, key=lambda blob: -blob.used)[: self.rules.keep or 0] for blobs in recipes.values())
        return {blob.path for blobs in newest for blob in blobs}

    def _leftovers(self) -> Iterator[Verdict]:
        """Yield verdicts on files of interrupted runs, quarantined files, stale chunk indexes and outdated leases."""
        root = self.store.root
        for path in (*self.store.leftovers(), *entries(root / "quarantine")):
            yield from self._leftover(path, "quarantined" if path.parent.name == "quarantine" else "unfinished")
        for folder in (
            root / leases.FOLDER,
            root / pins.FOLDER,
            root / squashfs.FOLDER,
            root / "locks",
            root / "refs",
            *entries(root / "images"),
        ):
            hidden = (path for path in entries(folder) if path.name.startswith("."))
            yield from (one for path in hidden for one in self._leftover(path, "unfinished"))
        here = {blob.digest for blob in self.blobs.values()}
        in_use = {lease.sif_digest.hex for lease in self.leases if self._alive(lease)}
        for path in entries(root / tried.FOLDER):
            if path.stem not in in_use:
                yield from self._leftover(path, "tried, not published")
        yield from (one for path in stale_indexes(self.store) for one in self._leftover(path, "its image is gone"))
        gone = squashfs.without_image(self.store)
        yield from (one for path in gone for one in self._leftover(path, "its image is gone"))
        for pin in self.pins:
            if not pin.holds(self.now, self.rules.patience) and self.now - pin.made > self.rules.grace:
                yield Verdict(pin.path, f"pin {pin.path.name[:12]}", 0, 0, f"{pin.file} no longer names it", keep=False)
        newest = {lease.sif_digest: lease.path for lease in sorted(self.leases, key=lambda lease: lease.used)}
        for lease in self.leases:
            replaced = newest[lease.sif_digest] != lease.path or lease.sif_digest not in here
            if replaced and self.now - lease.used > self.rules.grace and not self._alive(lease):
                yield Verdict(lease.path, f"lease {lease.path.name[:12]}", 0, 0, "its process has ended", keep=False)

    def _leftover(self, path: Path, what: str) -> Iterator[Verdict]:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
        size = min(found.st_size, found.st_blocks * _BLOCK) if stat.S_ISREG(found.st_mode) else 0  # may be sparse
        age = self.now - max(found.st_mtime, found.st_ctime)
        holder = self._holder(path.name.partition(".")[0]) if path.parent.name == "partial" else ""
        keep = age < self._grace_of(path) or bool(holder)
        why = f"being fetched by {holder}" if holder else f"{what}, {_age(age)} old"
        yield Verdict(path, path.name[:12], size, 0 if keep or found.st_nlink > 1 else size, why, keep)

    def _grace_of(self, path: Path) -> float:
        if path.parent.name == tried.FOLDER and not path.name.startswith("."):
            return max(self.rules.grace, tried.KEPT)
        return max(self.rules.grace, _SHORTEST if path.name.startswith(".") else 0)

    def carry_out(self, verdict: Verdict) -> Verdict:
        """Carry out a verdict, and return what was actually done."""
        if verdict.keep:
            return verdict
        self.progress.line(f"remove {verdict.name}")
        try:
            blob = self.blobs.get(verdict.path)
            kept = self._remove_leftover(verdict.path) if blob is None else self._remove(blob)
        except (PlaceUnusable, OSError):
            kept = "this user may not remove it"
        except Busy as error:  # another process has just taken the download lock
            kept = error.why or "being fetched"
        return replace(verdict, keep=True, why=kept, freed=0) if kept else verdict

    def _remove_leftover(self, path: Path) -> str:
        with contextlib.suppress(FileNotFoundError), self.store.holding(path) as entry:
            if path.parent.name != "partial":
                entry.remove()
                return ""
            with self._locked(path.name.partition(".")[0]):
                found = entry.folder.stat(entry.name)
                if self.now - max(found.st_mtime, found.st_ctime) < self._grace_of(path):
                    return "written just now"
                entry.remove()
        return ""

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold an image's download lock; wait only if its holder on another machine may be dead."""
        with self.store.opened() as root, root.make("locks") as locks:
            patience = 2 * STALE if holder_in(locks, f"{name}.lock") else 0
            with lock_in(locks, f"{name}.lock", patience, self.progress):
                yield

    def _remove(self, blob: _Blob) -> str:
        """Remove an image; return why it was kept, or ''."""
        if not _removable(blob):
            return "this user may not remove it"
        with self._locked(blob.digest.hex), contextlib.ExitStack() as stack:
            try:
                entry = stack.enter_context(self.store.holding(blob.path))
                found = entry.folder.stat(entry.name)
            except FileNotFoundError:
                return ""
            changed = (found.st_ino, found.st_ctime_ns) != (blob.found.st_ino, blob.found.st_ctime_ns)
            why = "written just now" if changed else self._in_use_now(blob)
            if why:
                return why
            root = stack.enter_context(self.store.opened())
            aside = stack.enter_context(root.make("partial")).named(f"{blob.digest.hex}.removed")
            entry.rename(aside)
            try:
                why = self._forget(blob)
            except BaseException:
                aside.rename(entry)
                raise
            if why:
                aside.rename(entry)
            else:
                aside.remove()
        return why

    def _forget(self, blob: _Blob) -> str:
        """Remove an image's tags, unless it came into use meanwhile; return why it was kept, or ''."""
        names = tags.names(self.store.root).get(blob.digest.hex, set())
        why = self._in_use_now(blob) or ("tagged just now" if names - blob.names else "")
        if not why:
            for recipe in {recipe for recipe, _ in names}:
                tags.forget(self.store, recipe, blob.digest, _WAIT)
        return why

    def _in_use_now(self, blob: _Blob) -> str:
        """Return who began to use the image after the plan was made, or ''."""
        leases.refresh(self.store.root)
        known = leases.read(self.store.root)
        lease = self._lease(blob.digest, known)
        if lease is not None:
            return f"in use by {lease}"
        if self._last_use(blob.digest, 0, known) > blob.used and self.rules.grace:
            return "used just now"
        pinned = self._pin(blob.digest, pins.read(self.store.root))
        if pinned is not None:
            return f"named by {pinned.file}"
        return ""


def _removable(blob: _Blob) -> bool:
    """Return whether this user may remove the file; checked before anything is changed."""
    folder = blob.path.parent
    found = folder.stat()
    owners_only = found.st_mode & stat.S_ISVTX and os.geteuid() != 0
    mine = os.geteuid() in (found.st_uid, blob.found.st_uid)
    return os.access(folder, os.W_OK | os.X_OK) and (mine or not owners_only)


def _age(seconds: float) -> str:
    """Format a time span in seconds: ``3 days``."""
    amount = max(0.0, seconds)
    for unit, length in (("days", _DAY), ("h", 3600.0), ("min", 60.0)):
        if amount >= 2 * length:
            return f"{amount / length:.0f} {unit}"
    return f"{amount:.0f} s"

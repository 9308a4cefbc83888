"""The content-addressed image store on a cluster: every image in it is complete, verified and read-only.

    blobs/sha256/ab/abcdef….sif   a SIF under its digest
    images/<recipe>/<tag>         a symbolic link to a blob
    refs/<recipe>.json            what each tag resolved to, when, and the image's run options
    partial/  locks/              work in progress

A blob is written in partial/. Then its size and digest are checked, it is synced, made read-only and renamed, and the
folder is synced.

A store can have read-only shared stores below it. Images found there are used in place, not fetched again.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure
from factory.io.below import Entry, Folder, entries, make_way
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST, Reference, RegistryAddress, recipe_name, tag_name
from factory.store import leases
from factory.store.leases import Job
from factory.store.links import link_of, wrong_links
from factory.store.record_files import read_refs, refs_file, write_refs
from factory.store.records import Records, absent
from factory.store.refs import Purged, StoredImage
from factory.store.trust import Trust

LOCK_TIMEOUT = 3600.0  # seconds to wait for another process that fetches the same image
RECORD_TIMEOUT = 60.0  # seconds to wait for another process that writes a recipe's record, which takes milliseconds
_GC_TIMEOUT = 5.0  # seconds to wait for a gc that looks at this image; it takes milliseconds
_POLL = 0.02
ELSEWHERE = "use a store of your own (--store DIR)"
_READ_ONLY = 0o444
_RECORD = r"[a-z0-9][a-z0-9._-]*\.json"


@dataclass(frozen=True)
class Store:
    """A store in one folder. Every method is safe with any number of concurrent processes.

    shared: read-only shared stores, in order of preference. trust: whose files may be used, here and in shared stores.
    registry: the registry of a name without one; '' if none is set. home: the registry set by the user or the site,
    ignoring the project's file; the links in `images/` follow it.
    """

    root: Path
    shared: tuple[Path, ...] = ()
    trust: Trust = field(default_factory=Trust)
    registry: str = ""
    home: str = ""

    def blob(self, digest: Digest) -> Path:
        """Return the path of this SIF in this store's own folder, whether it exists or not."""
        return _blob(self.root, digest)

    def where(self, wanted: Descriptor) -> Path | None:
        """Return the blob's path here or in a shared store: a regular file of the right size, whoever owns it."""
        for root in (self.root, *self.shared):
            with contextlib.suppress(OSError):
                found = _blob(root, wanted.digest).lstat()
                if stat.S_ISREG(found.st_mode) and found.st_size == wanted.size:
                    return _blob(root, wanted.digest)
        return None

    def has_file(self, digest: Digest) -> bool:
        """Return whether any file has the blob's name, here or in a shared store; True if a folder is unreadable."""
        for root in (self.root, *self.shared):
            try:
                _blob(root, digest).lstat()
            except FileNotFoundError:
                continue
            except OSError:
                return True
            return True
        return False

    def usable(self, wanted: Descriptor, *, hashed: bool = True) -> Path | None:
        """Return the blob's path if it may be used, or None.

        Blobs written by this user were verified on arrival; other owners' blobs are hashed once. hashed: False if the
        caller will hash the bytes anyway. Raises IntegrityFailure if the blob in this store must not be used; such a
        blob in a shared store is skipped.
        """
        path = self.usable_here(wanted, hashed=hashed)
        lower = (self._acceptable_in(root, wanted, hashed=hashed) for root in self.shared)
        return path or next(filter(None, lower), None)

    def usable_here(self, wanted: Descriptor, *, hashed: bool = True) -> Path | None:
        """Like ``usable``, in this store's own folder only."""
        return self._usable_in(self.root, wanted, hashed=hashed)

    def _acceptable_in(self, root: Path, wanted: Descriptor, *, hashed: bool) -> Path | None:
        try:
            return self._usable_in(root, wanted, hashed=hashed)
        except IntegrityFailure as error:
            self.trust.progress.note(f"not used: {error.what}: {error.why}")
        except OSError as error:
            self.trust.progress.note(f"not used: {root}: {error.strerror}")
        return None

    def _usable_in(self, root: Path, wanted: Descriptor, *, hashed: bool = True) -> Path | None:
        """Opens the file: on a network file system that asks the server, while lstat may answer from the cache."""
        path = _blob(root, wanted.digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size != wanted.size:
                return None
            self.trust.check(path, descriptor, wanted.digest, root, hashed=hashed)
        finally:
            os.close(descriptor)
        return path

    @contextlib.contextmanager
    def opened(self) -> Iterator[Folder]:
        """Open the store's own folder, and create it if it is missing. All writes go below it.

        Raises IntegrityFailure if an untrusted user could replace the folder, PlaceUnusable.
        """
        self._is_in_place()
        make_way(self.root)
        self._is_in_place()
        if self.root.stat().st_uid != os.geteuid() and (error := self.trust.mapping_error(self.root)):
            raise error
        with Folder.at(self.root).share() as root:
            yield root

    def _is_in_place(self) -> None:
        if why := self.trust.doubt_of_place(self.root):
            raise self.trust.mapping_error(self.root) or IntegrityFailure(
                f"the store {self.root} is not safe to use",
                why=why,
                fix="use a store in your home or another private folder, or list the owner in trusted_owners",
            )

    def lease(self, digest: Digest, job: Job | None = None, *, process: bool = True) -> None:
        """Take a lease on an image (factory.store.leases) in every store that has it and lets this user write one.

        Returns when no `store gc` can take the file away any more, for a moment included.
        """
        for root in (self.root, *self.shared):
            with contextlib.suppress(OSError):  # a store that this user may not enter
                there = root == self.root or _blob(root, digest).exists()
                if there and not self.trust.doubt_of_place(root):
                    leases.take(root, digest, job or Job(), process=process)
                    _wait_for_gc(root, digest)

    def record(self, image: StoredImage, tags: Iterable[str], *, asked: bool = True) -> None:
        """Record an image under its registry's tags, and update the links of the tags that follow this registry.

        asked: False if only a lock file named the registry. Writes nothing if nothing changes, so that users can pull
        from a store that they can only read.
        """
        folder = self.root / "images" / recipe_name(image.recipe)

        def target(one: StoredImage) -> str:
            path = self.usable(one.sif, hashed=False) or self.blob(one.sif_digest)
            return os.path.relpath(path, folder) if path.is_relative_to(self.root) else str(path)

        tags = tuple(tag_name(tag) for tag in tags)
        known = self.own(image.recipe)
        wanted = known.with_image(image, tags, self.home, asked=asked)
        same = all(image.says_the_same(known.of(image.registry).get(tag)) for tag in tags)
        settled = (known.home, known.unasked) == (wanted.home, wanted.unasked)
        if same and settled and not any(wrong_links(link_of(folder), wanted.links(self.home), wanted, image, target)):
            return
        from factory.io.locks import lock_in  # noqa: PLC0415 - `path` and `exec` write no records

        with (
            self.opened() as root,
            root.make("locks") as locks,
            root.make("refs") as refs,
            root.make("images", image.recipe) as links,
            lock_in(locks, f"refs-{image.recipe}.lock", RECORD_TIMEOUT, self.trust.progress, instead=ELSEWHERE),
        ):
            known = self.own(image.recipe)
            wanted = known.with_image(image, tags, self.home, asked=asked)
            moved = image if known.home == wanted.home else None  # None: check the links of all tags
            for tag, right in list(wrong_links(links.links_to, wanted.links(self.home), wanted, moved, target)):
                if not right:
                    links.remove(tag)
                elif not links.link(tag, right):
                    if not same:
                        self.trust.progress.note(f"no links in {links.path}: its file system has no symbolic links")
                    break
            write_refs(refs, image.recipe, wanted, self.home)

    def known(self, recipe: str) -> Records:
        """Return the records of a recipe in this store and the shared ones, whether the files exist or not."""
        known = self.own(recipe)
        for root in self.shared:
            known = known.over(self._refs(root, recipe))
        return known

    def own(self, recipe: str) -> Records:
        """Return this store's own records of a recipe."""
        return self._refs(self.root, recipe)

    def _refs(self, root: Path, recipe: str) -> Records:
        """Return the records in the store at root; empty if an untrusted user wrote them."""
        path = refs_file(root, recipe)
        try:
            doubt = self.trust.doubt(path, path.lstat(), root)
        except OSError:
            return Records()
        if doubt:
            self.trust.progress.note(f"not used: {doubt}")
        return Records() if doubt else read_refs(root, recipe)

    def find(self, reference: Reference) -> StoredImage:
        """Return the image that a reference names. Raises NotFound with the command that fetches it.

        A digest matches whatever registry the image came from. A tag is looked up in the registry of the reference,
        or else in the configured one. With no registry at all and several candidates, UsageError lists them.
        Raises Purged if the image is recorded but its file is gone: then the same digest has to be fetched again.
        """
        known = self.known(reference.name)
        registry = str(reference.registry) if reference.registry else self.registry
        if reference.digest:
            same = [image for image in known.images if image.digest == reference.digest]
            if same:
                return self._present(min(same, key=lambda image: image.registry != registry))
            raise absent(reference, known, self.registry, self.root)
        tags = known.of(registry) if reference.registry else known.unqualified(registry)
        if (reference.tag or LATEST) in tags:
            return self._present(tags[reference.tag or LATEST])
        if tags and not reference.tag and reference.registry is None:
            here = [image for image in tags.values() if self.where(image.sif)]
            return self._present(max(here or tags.values(), key=lambda image: image.pulled))
        raise absent(reference, known, self.registry, self.root)

    def is_unqualified(self, image: StoredImage, tag: str = "") -> bool:
        """Return whether NAME:TAG without a registry names this image. tag: by default the image's own."""
        found = self.known(image.recipe).unqualified(self.registry).get(tag or image.tag)
        return found is not None and (found.registry, found.digest) == (image.registry, image.digest)

    def holds(self, image: StoredImage) -> bool:
        """Return whether the image's file exists. Raises IntegrityFailure if its owner is not trusted."""
        return self.usable(image.sif, hashed=False) is not None

    def file(self, image: StoredImage, *, hashed: bool = True) -> Path:
        """Return the path of the image's file, ready to run. hashed: False if the caller copies and hashes it.

        Raises Purged, and IntegrityFailure like ``usable``.
        """
        path = self.usable(image.sif, hashed=hashed)
        if path is None:
            raise self._purged(image)
        return path

    def _present(self, image: StoredImage) -> StoredImage:
        """Return the image if its file still exists. Raises Purged."""
        if self.holds(image):
            return image
        raise self._purged(image)

    def _purged(self, image: StoredImage) -> Purged:
        elsewhere = image.registry not in ("", self.registry)
        registry = RegistryAddress.parse(image.registry) if elsewhere else None
        return Purged(Reference(image.recipe, tag=image.tag, registry=registry), image, self.blob(image.sif_digest))

    def images(self) -> Iterator[tuple[str, StoredImage]]:
        """Yield every tag and its image whose file is here or in a shared store, sorted."""
        for recipe in _recipes(self.root, *self.shared):
            for tag, image in self.known(recipe):
                if self.where(image.sif) is not None:
                    yield tag, image

    def missing(self) -> Iterator[StoredImage]:
        """Yield each image that this store's tags name but whose file is in no store, sorted, once per image."""
        for recipe in _recipes(self.root):
            images = {image.digest: image for image in self.own(recipe).images}
            yield from (image for image in images.values() if self.where(image.sif) is None)

    def blobs(self) -> Iterator[tuple[Digest, Path]]:
        """Yield every blob, sorted by digest. Files with other names are ignored."""
        for path in sorted((self.root / "blobs").glob("*/??/*.sif")):
            with contextlib.suppress(FactoryError):
                yield Digest.parse(f"{path.parent.parent.name}:{path.stem}"), path

    def quarantine(self, path: Path) -> Path:
        """Move a damaged blob to `quarantine/`, so that nothing runs it and the next pull fetches it again."""
        with self.holding(path) as wrong, self.opened() as root, root.make("quarantine") as quarantine:
            wrong.folder.rename(wrong.name, quarantine, wrong.name)
            return quarantine.path / wrong.name

    @contextlib.contextmanager
    def holding(self, path: Path) -> Iterator[Entry]:
        """Open the folder of a file in this store. Raises FileNotFoundError, IntegrityFailure for links."""
        *folders, name = path.relative_to(self.root).parts
        self._is_in_place()
        with Folder.at(self.root) as root, root.below(*folders) as folder:
            yield folder.named(name)

    def leftovers(self) -> Iterator[Path]:
        """Yield the unfinished downloads."""
        yield from entries(self.root / "partial")


def _wait_for_gc(root: Path, digest: Digest) -> None:
    """Wait while gc holds the image's lock: it may have looked for leases before, and moves the file aside and back."""
    lock, aside = root / "locks" / f"{digest.hex}.lock", root / "partial" / f"{digest.hex}.removed"
    deadline = time.monotonic() + _GC_TIMEOUT
    while _is_held(lock) and (_blob(root, digest).exists() or aside.exists()) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _is_held(lock: Path) -> bool:
    """Return whether a live process may hold a lock: its holder updates it. A killed process leaves its lock behind."""
    try:
        changed = lock.stat().st_mtime
    except OSError:
        return False
    from factory.io.locks import STALE  # noqa: PLC0415 - as above

    return abs(time.time() - changed) < STALE


def _recipes(*roots: Path) -> list[str]:
    """Return the recipes that have records in these stores."""
    found: set[str] = set()
    for root in roots:
        with contextlib.suppress(OSError):  # missing, or not readable by this user
            found |= {path.stem for path in (root / "refs").iterdir() if re.fullmatch(_RECORD, path.name, re.ASCII)}
    return sorted(found)


def _blob(root: Path, digest: Digest) -> Path:
    return root / "blobs" / digest.algorithm / digest.hex[:2] / f"{digest.hex}.sif"

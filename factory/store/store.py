"""The content-addressed store of images on a cluster: what is in it is complete, verified and read-only.

    blobs/sha256/ab/abcdef….sif   a SIF under its digest
    images/<recipe>/<tag>         a symbolic link to a blob
    refs/<recipe>.json            what was resolved, when, and how the image wants to be run
    partial/  locks/              work in progress

A blob is written in partial/, then exact size, digest, fsync, read-only, rename, fsync of the folder.

Below a store may lie others that this user only reads: what they have is used from there, and not fetched again.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure
from factory.io.below import Entry, Folder, entries, make_way
from factory.io.locks import lock_in
from factory.io.progress import Silent
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
RECORD_TIMEOUT = 60.0  # seconds to wait for another process that writes the record of a recipe, which takes none
ELSEWHERE = "use a store of your own (--store DIR)"
_READ_ONLY = 0o444
_RECORD = re.compile(r"[a-z0-9][a-z0-9._-]*\.json", re.ASCII)


@dataclass(frozen=True)
class Store:
    """A store below one folder. Every method is safe beside any number of other processes.

    shared: stores of others, only read, the first one first. trust: whose files may be used, here and there.
    registry: what a name without a registry means; '' where none is set. home: the same as this user or this site has
    set it, whatever the folder that they stand in says: the links in `images/` follow it.
    """

    root: Path
    shared: tuple[Path, ...] = ()
    trust: Trust = field(default_factory=Trust)
    registry: str = ""
    home: str = ""

    def blob(self, digest: Digest) -> Path:
        """Where the SIF of this digest is in this store's own folder, or would be."""
        return _blob(self.root, digest)

    def where(self, wanted: Descriptor) -> Path | None:
        """Where the blob is, here or in a shared store: an ordinary file of the right size, whoever owns it."""
        for root in (self.root, *self.shared):
            with contextlib.suppress(OSError):
                found = _blob(root, wanted.digest).lstat()
                if stat.S_ISREG(found.st_mode) and found.st_size == wanted.size:
                    return _blob(root, wanted.digest)
        return None

    def has_file(self, digest: Digest) -> bool:
        """Whether something has the blob's name, here or in a shared store; or may have, where nobody lets us look."""
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
        """Where the blob is, when it may be used: this user's own was checked when it came, others' are hashed once.

        hashed: False where its bytes will be hashed anyway. Raises IntegrityFailure when the one in this store must
        not be used; a shared store's is passed over then.
        """
        path = self.usable_here(wanted, hashed=hashed)
        lower = (self._acceptable_in(root, wanted, hashed=hashed) for root in self.shared)
        return path or next(filter(None, lower), None)

    def usable_here(self, wanted: Descriptor, *, hashed: bool = True) -> Path | None:
        """As ``usable``, in this store's own folder only."""
        return self._usable_in(self.root, wanted, hashed=hashed)

    def _acceptable_in(self, root: Path, wanted: Descriptor, *, hashed: bool) -> Path | None:
        try:
            return self._usable_in(root, wanted, hashed=hashed)
        except IntegrityFailure as error:
            self.trust.notice(f"not used: {error.what}: {error.why}")
        except OSError as error:
            self.trust.notice(f"not used: {root}: {error.strerror}")
        return None

    def _usable_in(self, root: Path, wanted: Descriptor, *, hashed: bool = True) -> Path | None:
        """Opens the file, since that asks the server where a network file system's cache might not."""
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
        """The store's own folder, made where it is not there: all that is written goes below it.

        Raises IntegrityFailure where a stranger could put another folder in its place, PlaceUnusable.
        """
        self._is_in_place()
        make_way(self.root)
        self._is_in_place()
        with Folder.at(self.root) as root:
            yield root

    def _is_in_place(self) -> None:
        if why := self.trust.doubt_of_place(self.root):
            raise IntegrityFailure(
                f"the store {self.root} is not safe to use",
                why=why,
                fix="use a store below your home or a folder of your own, or name the owner in trusted_owners",
            )

    def lease(self, digest: Digest, job: Job | None = None, *, process: bool = True) -> None:
        """Say that an image is in use (factory.store.leases), wherever it lies and this user may say so."""
        for root in (self.root, *self.shared):
            with contextlib.suppress(OSError):  # a store that this user may not enter
                there = root == self.root or _blob(root, digest).exists()
                if there and not self.trust.doubt_of_place(root):
                    leases.take(root, digest, job or Job(), process=process)

    def record(self, image: StoredImage, tags: Iterable[str], *, asked: bool = True) -> None:
        """Remember a present image under its registry's tags, and link those tags that are this registry's to give.

        asked: False where only a lock file named the registry. Writes nothing when all that is known already: who may
        only read a shared store can pull what it has.
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
        with (
            self.opened() as root,
            root.make("locks") as locks,
            root.make("refs") as refs,
            root.make("images", image.recipe) as links,
            lock_in(locks, f"refs-{image.recipe}.lock", RECORD_TIMEOUT, Silent(), instead=ELSEWHERE),
        ):
            known = self.own(image.recipe)
            wanted = known.with_image(image, tags, self.home, asked=asked)
            moved = image if known.home == wanted.home else None  # None: the links of all tags may be another's
            for tag, right in list(wrong_links(links.links_to, wanted.links(self.home), wanted, moved, target)):
                if right:
                    links.link(tag, right)
                else:
                    links.remove(tag)
            write_refs(refs, image.recipe, wanted, self.home)

    def known(self, recipe: str) -> Records:
        """What this store and the shared ones remember of a recipe, whether its files are here or not."""
        known = self.own(recipe)
        for root in self.shared:
            known = known.over(self._refs(root, recipe))
        return known

    def own(self, recipe: str) -> Records:
        """What this store itself remembers of a recipe."""
        return self._refs(self.root, recipe)

    def _refs(self, root: Path, recipe: str) -> Records:
        """What the store below root remembers; nothing when somebody who is not trusted wrote it."""
        path = refs_file(root, recipe)
        try:
            doubt = self.trust.doubt(path, path.lstat(), root)
        except OSError:
            return Records()
        if doubt:
            self.trust.notice(f"not used: {doubt}")
        return Records() if doubt else read_refs(root, recipe)

    def find(self, reference: Reference) -> StoredImage:
        """The image that a reference names, if it is here. Raises NotFound with the command that fetches it.

        A digest decides by itself, whichever registry it came from. A tag is looked for in the registry that is named,
        else in the one that is set; where none is, and the name came from several, UsageError says what to type.
        Raises Purged, which knows the image, when it was here: its own digest must come back, not a newer one's.
        """
        known = self.known(reference.name)
        registry = str(reference.registry) if reference.registry else self.registry
        if reference.digest:
            same = [image for image in known.images if image.digest == reference.digest]
            if same:
                return self._present(min(same, key=lambda image: image.registry != registry))
            raise absent(reference, known, self.registry, self.root)
        meant = known.of(registry) if reference.registry else known.meant(registry)
        if (reference.tag or LATEST) in meant:
            return self._present(meant[reference.tag or LATEST])
        if meant and not reference.tag and reference.registry is None:
            here = [image for image in meant.values() if self.where(image.sif)]
            return self._present(max(here or meant.values(), key=lambda image: image.pulled))
        raise absent(reference, known, self.registry, self.root)

    def is_meant(self, image: StoredImage, tag: str = "") -> bool:
        """Whether NAME:TAG, without a registry, names this image."""
        meant = self.known(image.recipe).meant(self.registry).get(tag or image.tag)
        return meant is not None and (meant.registry, meant.digest) == (image.registry, image.digest)

    def holds(self, image: StoredImage) -> bool:
        """Whether the image's file is there now, of an owner that is trusted. Raises IntegrityFailure otherwise."""
        return self.usable(image.sif, hashed=False) is not None

    def file(self, image: StoredImage, *, hashed: bool = True) -> Path:
        """The image's file, to be run; hashed: False when it is to be copied and hashed then.

        Raises Purged, and IntegrityFailure, as usable does.
        """
        path = self.usable(image.sif, hashed=hashed)
        if path is None:
            raise self._purged(image)
        return path

    def _present(self, image: StoredImage) -> StoredImage:
        """The image, if its file is still there. Raises Purged."""
        if self.holds(image):
            return image
        raise self._purged(image)

    def _purged(self, image: StoredImage) -> Purged:
        elsewhere = image.registry not in ("", self.registry)
        registry = RegistryAddress.parse(image.registry) if elsewhere else None
        return Purged(Reference(image.recipe, tag=image.tag, registry=registry), image, self.blob(image.sif_digest))

    def images(self) -> Iterator[tuple[str, StoredImage]]:
        """Every tag and its image that is here or in a shared store, sorted."""
        for recipe in _recipes(self.root, *self.shared):
            for tag, image in self.known(recipe):
                if self.where(image.sif) is not None:
                    yield tag, image

    def missing(self) -> Iterator[StoredImage]:
        """What this store's own tags name and nobody has any more, sorted; each once, whatever the number of tags."""
        for recipe in _recipes(self.root):
            images = {image.digest: image for image in self.own(recipe).images}
            yield from (image for image in images.values() if self.where(image.sif) is None)

    def blobs(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob, sorted by digest; files with other names are not the store's and are left alone."""
        for path in sorted((self.root / "blobs").glob("*/??/*.sif")):
            with contextlib.suppress(FactoryError):
                yield Digest.parse(f"{path.parent.parent.name}:{path.stem}"), path

    def quarantine(self, path: Path) -> Path:
        """Move a wrong blob out of the way, so that nothing runs it and the next pull fetches it anew."""
        with self.holding(path) as wrong, self.opened() as root, root.make("quarantine") as quarantine:
            wrong.folder.rename(wrong.name, quarantine, wrong.name)
            return quarantine.path / wrong.name

    @contextlib.contextmanager
    def holding(self, path: Path) -> Iterator[Entry]:
        """A file of this store, in its folder, which is held. Raises FileNotFoundError, IntegrityFailure for links."""
        *folders, name = path.relative_to(self.root).parts
        self._is_in_place()
        with Folder.at(self.root) as root, root.below(*folders) as folder:
            yield folder.named(name)

    def leftovers(self) -> Iterator[Path]:
        """Unfinished downloads."""
        yield from entries(self.root / "partial")


def _recipes(*roots: Path) -> list[str]:
    """The recipes of which these stores remember something."""
    found: set[str] = set()
    for root in roots:
        with contextlib.suppress(OSError):  # not there, or closed to this user
            found |= {path.stem for path in (root / "refs").iterdir() if _RECORD.fullmatch(path.name)}
    return sorted(found)


def _blob(root: Path, digest: Digest) -> Path:
    return root / "blobs" / digest.algorithm / digest.hex[:2] / f"{digest.hex}.sif"

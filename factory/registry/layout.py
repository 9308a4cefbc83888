"""A folder as a registry: one OCI image layout per recipe below it (image-spec, image-layout.md).

``oras``, ``crane`` and ``skopeo`` can read each of them. Behaves as a registry over HTTP does, so that it can be
the embedded default, an air-gapped mirror or a test's registry.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from factory.digest import Descriptor, Digest, verified
from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, RegistryFailure, UsageError
from factory.io import plain
from factory.io.files import (
    BLOCK,
    atomic_write,
    create,
    explained,
    make_folder,
    rename_into_place,
    require_space,
    temporary_in,
)
from factory.io.locks import lock
from factory.io.private import planted
from factory.io.progress import Progress, Silent
from factory.io.sweep import sweep
from factory.names import RegistryAddress, tag_name
from factory.registry.documents import as_referrer, checked_repository, named, read_manifest, subject_of
from factory.registry.layout_index import INDEX_LIMIT, LayoutIndex
from factory.registry.protocol import MANIFEST_LIMIT, Manifest, RawManifest

_LAYOUT = json.dumps({"imageLayoutVersion": "1.0.0"})
_LOCK_TIMEOUT = 120.0  # seconds; the lock is held for milliseconds
_PARTIAL_LIFE = 24 * 3600.0  # seconds after which what a dead process left may go
_MARGIN = 1024 * 1024  # bytes kept free for index and folders


class LayoutRegistry:
    """Implements ``protocol.Registry`` in a folder. Several processes may use it at the same time."""

    def __init__(self, address: RegistryAddress) -> None:
        if not address.is_folder:
            raise UsageError(f"not a folder of image layouts: {address}")
        self._address = address
        self._root = Path(address.path)
        self._subjects: dict[Digest, tuple[Digest | None, Descriptor]] = {}  # content-addressed: never out of date

    def describe(self) -> str:
        """The address."""
        return str(self._address)

    @property
    def connections(self) -> int:
        """One: a disk gains nothing from several readers of one file."""
        return 1

    def tags(self, repository: str) -> Sequence[str]:
        """All tags, sorted; empty when there is no such layout."""
        return sorted(self._index(repository).tags())

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """What a tag or digest names now."""
        try:
            return self.manifest(repository, tag).descriptor
        except NotFound:
            return None

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """A manifest or index, verified. Raises NotFound."""
        index = self._index(repository)
        if ":" in tag_or_digest:
            digest = Digest.parse(tag_or_digest)
            entry = index.find(digest)
        else:
            entry = index.tags().get(tag_name(tag_or_digest))
            if entry is None:
                raise self._missing(repository, f"no tag {tag_or_digest}")
            digest = Digest.parse(str(entry.get("digest")))
        return self._read_manifest(repository, digest, str(entry.get("mediaType", "")) if entry else "")

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        """The blob's bytes; the digest is checked when all of it is read, and not the caller's part."""
        stop = wanted.size if length is None else offset + length
        if not 0 <= offset <= stop <= wanted.size:
            raise IntegrityFailure(
                "bytes were asked for that are not there", why=f"{offset} to {stop} of {wanted.size}"
            )
        blocks = self._blocks(repository, wanted, offset, stop)
        whole = (offset, stop) == (0, wanted.size)
        return verified(blocks, wanted) if whole and not caller_verifies else blocks

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        """True when the blob is there with that size. Raises IntegrityFailure for a link in its place."""
        path = self._blob_path(repository, wanted.digest)
        with _reading(path):
            try:
                found = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
        if not stat.S_ISREG(found.st_mode):
            raise planted(path)
        return found.st_size == wanted.size

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        """Copy a file or bytes into the layout unless it is there, whole and right."""
        if self.has_blob(repository, wanted) and self._is_right(repository, wanted):
            return
        self._prepare(repository)
        if isinstance(source, bytes):
            self._store(repository, iter([source]), wanted)
            return
        progress.begin(f"push {wanted.digest.short}", wanted.size)
        try:
            self._store(repository, _counted(_file_blocks(source), progress), wanted)
        finally:
            progress.end()

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        """Write a manifest and list it, under a tag if one is given."""
        self._write(repository, raw, tag)

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        """Write a manifest under a tag unless the tag names another one; False then."""
        return self._write(repository, raw, tag, only_new=True)

    def _write(self, repository: str, raw: RawManifest, tag: str, *, only_new: bool = False) -> bool:
        if tag:
            tag_name(tag)
        if len(raw.content) > MANIFEST_LIMIT:
            raise UsageError("the manifest is too large", why=f"{len(raw.content)} of at most {MANIFEST_LIMIT} bytes")
        blobs, manifests = named(raw)
        for needed in (*blobs, *manifests):
            if not self.has_blob(repository, needed):
                refused = RegistryFailure(
                    f"{self.describe()}/{repository} did not take manifest {tag or raw.descriptor.digest.short}",
                    why=f"it names {needed.digest}, which is not there",
                    fix="push that first",
                )
                refused.retryable = False
                raise refused
        self._prepare(repository)
        if not self.has_blob(repository, raw.descriptor):
            self._store(repository, iter([raw.content]), raw.descriptor)
        folder = self._folder(repository)
        with lock(self._root / ".locks" / repository, _LOCK_TIMEOUT, Silent()):
            index = self._index(repository)
            there = index.tags().get(tag) if only_new else None
            if there is not None and there.get("digest") != str(raw.descriptor.digest):
                return False
            changed = index.with_manifest(raw.descriptor, tag)
            if changed is not index:
                atomic_write(folder / "index.json", changed.content())
        return True

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        """Manifests whose subject this is, of those that index.json lists."""
        found = []
        for entry in self._index(repository).descriptors():
            if entry.digest not in self._subjects and entry.size <= MANIFEST_LIMIT:
                try:
                    raw = self._read_manifest(repository, entry.digest, entry.media_type)
                except NotFound:
                    continue
                self._subjects[entry.digest] = subject_of(raw.json()), as_referrer(raw)
            its_subject, descriptor = self._subjects.get(entry.digest, (None, entry))
            if its_subject == subject and artifact_type in ("", descriptor.artifact_type):
                found.append(descriptor)
        return found

    def push_referrer(self, repository: str, manifest: Manifest) -> Descriptor:
        """Write a manifest that has a subject; index.json makes it findable."""
        if manifest.subject is None:
            raise IntegrityFailure("a referrer without a subject", why="its manifest names none")
        raw = manifest.raw()
        self.push_manifest(repository, raw)
        return as_referrer(raw)

    def _folder(self, repository: str) -> Path:
        if "/" in checked_repository(repository):
            raise UsageError(f"not a repository of {self.describe()}: {repository}", why="it has no folders in folders")
        return self._root / repository

    def _blob_path(self, repository: str, digest: Digest) -> Path:
        return self._folder(repository) / "blobs" / digest.algorithm / digest.hex

    def _index(self, repository: str) -> LayoutIndex:
        path = self._folder(repository) / "index.json"
        try:
            with _reading(path):
                content = plain.read_plain(path, INDEX_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return LayoutIndex()
        return LayoutIndex.parse(content, str(path))

    def _read_manifest(self, repository: str, digest: Digest, said: str) -> RawManifest:
        path = self._blob_path(repository, digest)
        with self._opened(repository, path, digest) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > MANIFEST_LIMIT:
                raise self._missing(repository, f"no manifest {digest}")
            content = os.pread(descriptor, MANIFEST_LIMIT + 1, 0)
        raw = read_manifest(content, said, digest.algorithm)
        if raw.descriptor.digest != digest:
            raise _damaged(path, f"wanted {digest}, got {raw.descriptor.digest}")
        return raw

    def _blocks(self, repository: str, wanted: Descriptor, start: int, stop: int) -> Iterator[bytes]:
        path = self._blob_path(repository, wanted.digest)
        with self._opened(repository, path, wanted.digest) as descriptor:
            size = os.fstat(descriptor).st_size
            if size != wanted.size:
                raise _damaged(path, f"wanted {wanted.size} bytes, it has {size}")
            at = start
            while at < stop:
                block = os.pread(descriptor, min(BLOCK, stop - at), at)
                if not block:
                    raise _damaged(path, f"it ends at byte {at} of {wanted.size}")
                at += len(block)
                yield block

    @contextlib.contextmanager
    def _opened(self, repository: str, path: Path, digest: Digest) -> Iterator[int]:
        """An open regular file, never through a link."""
        with _reading(path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise self._missing(repository, f"no {digest}") from error
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise planted(path) from error
                raise
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise planted(path)
                yield descriptor
            finally:
                os.close(descriptor)

    def _is_right(self, repository: str, wanted: Descriptor) -> bool:
        """Hash a blob that is there already: a damaged one is written anew."""
        try:
            for _ in self.blob(repository, wanted):
                pass
        except IntegrityFailure:
            return False
        return True

    def _prepare(self, repository: str) -> None:
        """Make the layout's folders, and remove what processes that died left behind."""
        folder = self._folder(repository)
        make_folder(folder / "blobs" / "sha256")
        marker = folder / "oci-layout"
        if not marker.exists():
            atomic_write(marker, _LAYOUT)
        partial = make_folder(self._root / ".partial", 0o755)
        if partial.is_symlink():
            raise planted(partial)
        sweep(partial, _PARTIAL_LIFE)

    def _store(self, repository: str, blocks: Iterator[bytes], wanted: Descriptor) -> None:
        """Temporary, exact size, digest, fsync, rename, fsync of the folder."""
        final = self._blob_path(repository, wanted.digest)
        make_folder(final.parent)
        partial = self._root / ".partial"
        require_space(partial, wanted.size + _MARGIN, f"to push {wanted.digest.short}")
        with temporary_in(partial, wanted.digest.short) as temporary:
            with create(temporary) as file, explained(temporary, wanted.size):
                for block in verified(blocks, wanted):
                    file.write(block)
            rename_into_place(temporary, final)

    def _missing(self, repository: str, what: str) -> NotFound:
        there = self._folder(repository).is_dir()
        return NotFound(
            f"{self.describe()} has {what if there else f'no {repository}'}" + (f" in {repository}" if there else ""),
            fix="singfactory list shows what there is",
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the file system refuses to read into errors of the tree; absence stays what it is."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except PermissionError as error:
        raise AccessDenied(
            f"not allowed to read {path}", why=error.strerror or "", fix="ask the owner of the folder"
        ) from error
    except OSError as error:
        raise RegistryFailure(
            f"{path} cannot be read", why=error.strerror or "", fix="check the disk, then try again"
        ) from error


def _file_blocks(path: Path) -> Iterator[bytes]:
    try:
        with plain.reading(path) as file:
            while block := file.read(BLOCK):
                yield block
    except FileNotFoundError as error:
        raise NotFound(f"the file to push is not there: {path}", fix="build it first") from error


def _counted(blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for block in blocks:
        yield block
        progress.advance(len(block))


def _damaged(path: Path, why: str) -> FactoryError:
    return IntegrityFailure(
        f"{path} is damaged", why=why, fix="push the image again, or restore the folder from a copy"
    )

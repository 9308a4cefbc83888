"""A folder as a registry: one OCI image layout per recipe below it (image-spec, image-layout.md).

``oras``, ``crane`` and ``skopeo`` can read them. It behaves like a registry over HTTP, so it can serve as the embedded
default, an air-gapped mirror, or a registry for tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure, NotFound, RegistryFailure, UsageError
from factory.io import plain
from factory.io.files import BLOCK
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest, verified
from factory.oci.names import RegistryAddress, tag_name
from factory.registry.documents import as_referrer, checked_repository, named, read_manifest, subject_of
from factory.registry.layout_files import LayoutFiles
from factory.registry.layout_index import LayoutIndex
from factory.registry.protocol import MANIFEST_LIMIT, Manifest, RawManifest


class LayoutRegistry:
    """Implements ``protocol.Registry`` in a folder. Several processes may use it concurrently."""

    def __init__(self, address: RegistryAddress) -> None:
        if not address.is_folder:
            raise UsageError(f"not a folder of image layouts: {address}")
        self._address = address
        self._files = LayoutFiles(Path(address.path))
        self._subjects: dict[Digest, tuple[Digest | None, Descriptor]] = {}  # content-addressed: never stale

    def describe(self) -> str:
        """Return the address."""
        return str(self._address)

    @property
    def connections(self) -> int:
        """1: reading a file in parallel is no faster."""
        return 1

    def tags(self, repository: str) -> Sequence[str]:
        """Return all tags, sorted; none if the layout does not exist."""
        return sorted(self._index(repository).tags())

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None."""
        try:
            return self.manifest(repository, tag).descriptor
        except NotFound:
            return None

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index, verified. Raises NotFound."""
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
        """Stream the blob's bytes. The digest is checked if the whole blob is read and the caller does not verify."""
        stop = wanted.size if length is None else offset + length
        if not 0 <= offset <= stop <= wanted.size:
            raise IntegrityFailure(
                "the requested range is outside the blob", why=f"bytes {offset} to {stop} of {wanted.size}"
            )
        blocks = self._blocks(repository, wanted, offset, stop)
        whole = (offset, stop) == (0, wanted.size)
        return verified(blocks, wanted) if whole and not caller_verifies else blocks

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        """Return True if the blob exists with that size. Raises IntegrityFailure if it is a link."""
        try:
            with self._files.blob(self._checked(repository), wanted.digest) as descriptor:
                return os.fstat(descriptor).st_size == wanted.size
        except FileNotFoundError:
            return False

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        """Copy a file or bytes into the layout unless an intact copy is there."""
        if self.has_blob(repository, wanted) and self._is_right(repository, wanted):
            return
        with self._files.writing(self._checked(repository)) as layout:
            if isinstance(source, bytes):
                layout.store(wanted, iter([source]))
                return
            progress.begin(f"push {wanted.digest.short}", wanted.size)
            try:
                layout.store(wanted, _counted(_file_blocks(source), progress))
            finally:
                progress.end()

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        """Write a manifest and list it, under a tag if given."""
        self._write(repository, raw, tag)

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        """Write a manifest under a tag. Return False if the tag names another manifest."""
        return self._write(repository, raw, tag, only_new=True)

    def _write(self, repository: str, raw: RawManifest, tag: str, *, only_new: bool = False) -> bool:
        if tag:
            tag_name(tag)
        if len(raw.content) > MANIFEST_LIMIT:
            raise UsageError("the manifest is too large", why=f"{len(raw.content)} bytes; limit {MANIFEST_LIMIT}")
        blobs, manifests = named(raw)
        for needed in (*blobs, *manifests):
            if not self.has_blob(repository, needed):
                refused = RegistryFailure(
                    f"{self.describe()}/{repository} rejected manifest {tag or raw.descriptor.digest.short}",
                    why=f"it names {needed.digest}, which is missing",
                    fix="push that blob first",
                )
                refused.retryable = False
                raise refused
        there = self.has_blob(repository, raw.descriptor)
        with self._files.writing(self._checked(repository)) as layout:
            if not there:
                layout.store(raw.descriptor, iter([raw.content]))
            return layout.list_manifest(raw.descriptor, tag, only_new=only_new)

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        """Return the manifests in index.json with this subject."""
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
        """Write a manifest that has a subject, and list it in index.json."""
        if manifest.subject is None:
            raise IntegrityFailure("a referrer without a subject", why="its manifest names none")
        raw = manifest.raw()
        self.push_manifest(repository, raw)
        return as_referrer(raw)

    def _checked(self, repository: str) -> str:
        if "/" in checked_repository(repository):
            raise UsageError(
                f"not a repository of {self.describe()}: {repository}", why="a folder registry has no nested names"
            )
        return repository

    def _index(self, repository: str) -> LayoutIndex:
        return self._files.index(self._checked(repository))

    def _read_manifest(self, repository: str, digest: Digest, stated: str) -> RawManifest:
        try:
            with self._files.blob(self._checked(repository), digest) as descriptor:
                if os.fstat(descriptor).st_size > MANIFEST_LIMIT:
                    raise self._missing(repository, f"no manifest {digest}")
                content = os.pread(descriptor, MANIFEST_LIMIT + 1, 0)
        except FileNotFoundError as error:
            raise self._missing(repository, f"no {digest}") from error
        raw = read_manifest(content, stated, digest.algorithm)
        if raw.descriptor.digest != digest:
            raise self._damaged(repository, digest, f"expected {digest}, got {raw.descriptor.digest}")
        return raw

    def _blocks(self, repository: str, wanted: Descriptor, start: int, stop: int) -> Iterator[bytes]:
        try:
            with self._files.blob(self._checked(repository), wanted.digest) as descriptor:
                size = os.fstat(descriptor).st_size
                if size != wanted.size:
                    raise self._damaged(repository, wanted.digest, f"expected {wanted.size} bytes, it has {size}")
                at = start
                while at < stop:
                    block = os.pread(descriptor, min(BLOCK, stop - at), at)
                    if not block:
                        raise self._damaged(repository, wanted.digest, f"it ends at byte {at} of {wanted.size}")
                    at += len(block)
                    yield block
        except FileNotFoundError as error:
            raise self._missing(repository, f"no {wanted.digest}") from error

    def _is_right(self, repository: str, wanted: Descriptor) -> bool:
        """Hash an existing blob and return True if it is intact; a damaged one is written again."""
        try:
            for _ in self.blob(repository, wanted):
                pass
        except IntegrityFailure:
            return False
        return True

    def _missing(self, repository: str, what: str) -> NotFound:
        there = self._files.has(repository)
        return NotFound(
            f"{self.describe()} has {what if there else f'no {repository}'}" + (f" in {repository}" if there else ""),
            fix="singfactory list shows what is published",
        )

    def _damaged(self, repository: str, digest: Digest, why: str) -> FactoryError:
        path = self._files.root / repository / "blobs" / digest.algorithm / digest.hex
        return IntegrityFailure(
            f"{path} is damaged", why=why, fix="push the image again, or restore the folder from a copy"
        )


def _file_blocks(path: Path) -> Iterator[bytes]:
    try:
        with plain.reading(path) as file:
            while block := file.read(BLOCK):
                yield block
    except FileNotFoundError as error:
        raise NotFound(f"the file to push does not exist: {path}", fix="build it first") from error


def _counted(blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for block in blocks:
        yield block
        progress.advance(len(block))

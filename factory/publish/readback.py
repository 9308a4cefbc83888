"""Read a release back with another client before announcing it.

A registry, or a proxy in front of it, may serve our client what it does not serve to others. So a release is announced
(moving tags, catalog) only after a second client has read the same manifests, referrers and sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from factory.errors import FactoryError, IntegrityFailure, NotFound, RegistryFailure
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST
from factory.publish.published import ReleaseSet
from factory.registry.protocol import Manifest, RawManifest, Registry

NEVER, FIRST, ALWAYS = "never", "first", "always"
VERIFY_BYTES = (NEVER, FIRST, ALWAYS)
"""When whole images are read back. FIRST: for the first release of a recipe."""

Attached = Mapping[Digest, Sequence[Descriptor]]
"""The referrers of each image manifest."""

_SMALL = 1024 * 1024  # bytes; blobs up to this size are always hashed


class Reader(Protocol):
    """The second client. Its methods raise NotFound, IntegrityFailure, RegistryFailure or a subclass."""

    def manifest(self, repository: str, reference: str) -> RawManifest:
        """Return the manifest of a tag or digest, with a descriptor of the answer."""

    def referrers(self, repository: str, subject: Digest) -> Sequence[Descriptor]:
        """Return the manifests with this subject."""

    def announced_size(self, repository: str, wanted: Descriptor) -> int | None:
        """Return a blob's size in bytes as the registry announces it, or None."""

    def check_blob(self, repository: str, wanted: Descriptor, progress: Progress) -> None:
        """Read a blob and hash it."""


class ReadBackFailed(FactoryError):
    """The second client cannot read a release back, or reads something else.

    The exit code depends on the cause: 4 if the registry fails, refuses or has nothing, 5 if it sends other bytes.
    """

    def __init__(self, place: str, recipe: str, subject: str, cause: FactoryError) -> None:
        super().__init__(
            f"{place} is not announced: oras-py does not read what was published",
            why=f"{subject}: {cause}",
            fix=f"{LATEST} and the catalog are unchanged. Check the registry and any proxy or cache in front of it, "
            f"then: singfactory publish {recipe}",
        )
        refused = isinstance(cause, (NotFound, RegistryFailure))
        self.exit_code = RegistryFailure.exit_code if refused else cause.exit_code
        self.retryable = cause.retryable


@dataclass
class ReadBack:
    """Reads each release back once. Thread-safe.

    open_reader: returns the second client, or None for a registry that has none (a folder). verify_bytes: one of
    VERIFY_BYTES.
    """

    open_reader: Callable[[], Reader | None]
    verify_bytes: str = NEVER
    _reader: Reader | None = None
    _is_open: bool = False
    _done: set[tuple[str, Digest]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self) -> Reader | None:
        """Return the second client. Raises UsageError if it is not installed; call it before anything is pushed."""
        with self._lock:
            if not self._is_open:
                self._reader, self._is_open = self.open_reader(), True
            return self._reader

    def confirm(
        self, recipe: str, found: ReleaseSet, *, registry: Registry, progress: Progress, attached: Attached
    ) -> None:
        """Raise ReadBackFailed unless the second client reads a release as it was published.

        registry: read by our own client. attached: the referrers pushed with each image; those of other images are
        looked up in registry.
        """
        reader, key = self.prepare(), (recipe, found.digest)
        if reader is None or key in self._done:
            return
        whole = self.verify_bytes == ALWAYS or (self.verify_bytes == FIRST and registry.head(recipe, LATEST) is None)
        _Comparison(reader, recipe, found, f"{registry.describe()}/{recipe}:{found.tag}", progress, whole=whole).run(
            lambda digest: attached[digest] if digest in attached else registry.referrers(recipe, digest)
        )
        self._done.add(key)


class _Comparison:
    """Compares one release with what the second client reads."""

    def __init__(
        self, reader: Reader, recipe: str, found: ReleaseSet, place: str, progress: Progress, *, whole: bool
    ) -> None:
        self._reader = reader
        self._recipe = recipe
        self._found = found
        self._place = place
        self._progress = progress
        self._whole = whole
        self._blobs: set[Digest] = set()

    def run(self, attached: Callable[[Digest], Sequence[Descriptor]]) -> None:
        found = self._found
        size = sum(release.sif.size for release in found.releases) if self._whole else None
        self._progress.begin(f"reading back {self._recipe}:{found.tag}", size)
        try:
            raw = self._manifest(f"the tag {found.tag}", str(found.tag), found.raw.descriptor)
            for member in found.members:
                if found.is_index:
                    raw = self._manifest(f"the image for {member.arch}", str(member.manifest.digest), member.manifest)
                self._blobs_of("its image" if not member.arch else f"its image for {member.arch}", raw)
                self._referrers(member.manifest.digest, attached(member.manifest.digest))
        finally:
            self._progress.end()

    def _manifest(self, subject: str, reference: str, wanted: Descriptor) -> RawManifest:
        try:
            raw = self._reader.manifest(self._recipe, reference)
            _require_same(raw.descriptor, wanted)
        except FactoryError as error:
            raise self._failed(subject, error) from error
        return raw

    def _referrers(self, subject: Digest, wanted: Sequence[Descriptor]) -> None:
        """Check that each referrer is listed as published and can be fetched. There may be others."""
        try:
            listed = {one.digest: one for one in self._reader.referrers(self._recipe, subject)}
        except FactoryError as error:
            raise self._failed("the list of referrers", error) from error
        for one in wanted:
            name = f"the referrer {one.artifact_type}"
            try:
                if one.digest not in listed:
                    raise NotFound(f"{one.digest} is not listed")
                _require_same(listed[one.digest], one)
            except FactoryError as error:
                raise self._failed(name, error) from error
            self._blobs_of(name, self._manifest(name, str(one.digest), one))

    def _blobs_of(self, subject: str, raw: RawManifest) -> None:
        manifest = Manifest.read(raw)  # its digest has been checked
        for blob in (manifest.config, *manifest.layers):
            if blob.digest in self._blobs:
                continue
            try:
                self._blob(blob)
            except FactoryError as error:
                raise self._failed(subject, error) from error
            self._blobs.add(blob.digest)

    def _blob(self, blob: Descriptor) -> None:
        announced = None if self._whole or blob.size <= _SMALL else self._reader.announced_size(self._recipe, blob)
        if announced is None:
            self._reader.check_blob(self._recipe, blob, self._progress)
        elif announced != blob.size:
            raise IntegrityFailure(f"{blob.digest} has {announced} bytes instead of {blob.size}")

    def _failed(self, subject: str, cause: FactoryError) -> ReadBackFailed:
        return ReadBackFailed(self._place, self._recipe, subject, cause)


def _require_same(got: Descriptor, wanted: Descriptor) -> None:
    """Raise IntegrityFailure with all differences, if any."""
    pairs = (
        ("digest", got.digest, wanted.digest),
        ("media type", got.media_type or "none", wanted.media_type),
        ("size", got.size, wanted.size),
    )
    differences = [f"{name} {one} instead of {other}" for name, one, other in pairs if one != other]
    if differences:
        raise IntegrityFailure(", ".join(differences))

"""A registry over HTTP (OCI distribution-spec 1.1; Docker Registry HTTP API V2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from factory import strict
from factory.errors import IntegrityFailure, NotFound, UsageError
from factory.io.http.client import Answer, Client, HttpFailure, HttpSettings
from factory.io.http.stream import download
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest, verified
from factory.oci.names import RegistryAddress, tag_name
from factory.registry.credentials import Keychain
from factory.registry.documents import MANIFEST_TYPES, as_referrer, media_type, read_manifest
from factory.registry.endpoint import Endpoint
from factory.registry.paging import pages
from factory.registry.protocol import MANIFEST_LIMIT, Access, Manifest, RawManifest
from factory.registry.referrers import list_referrers, make_findable
from factory.registry.uploads import push_blob

_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
_TAGS_A_PAGE = 1000
_MOST_TAGS = 200_000  # per page; some registries send all tags at once
_OK, _NOT_FOUND = 200, 404
_WRITTEN = frozenset({200, 201, 202, 204})


class DistributionRegistry:
    """Implements ``protocol.Registry`` over HTTP. Thread-safe."""

    def __init__(
        self,
        address: RegistryAddress,
        *,
        settings: HttpSettings | None = None,
        keychain: Keychain | None = None,
        notice: Callable[[str], None] = lambda _: None,
        access: Access = Access.READ,
    ) -> None:
        if address.is_folder:
            raise UsageError(f"not a registry over HTTP: {address}")
        self._address = address
        self._endpoint = Endpoint(address, Client(settings, notice), keychain or Keychain(), notice, access)

    def describe(self) -> str:
        """Return the address."""
        return str(self._address)

    @property
    def endpoint(self) -> Endpoint:
        """The address and logins, for another client of the same registry."""
        return self._endpoint

    @property
    def connections(self) -> int:
        """The setting `connections`."""
        return self._endpoint.client.settings.connections

    def check_login(self) -> None:
        """Raise AccessDenied unless the registry accepts the stored login."""
        self._endpoint.check()

    def tags(self, repository: str) -> Sequence[str]:
        """Return all tags, sorted; none if the repository does not exist."""
        found: set[str] = set()
        url = self._endpoint.url(repository, "tags", "list") + f"?n={_TAGS_A_PAGE}"
        for answer in pages(self._endpoint, url, repository):
            if answer.status == _NOT_FOUND:
                break
            if answer.status != _OK:
                raise self._endpoint.failure(answer, repository, "does not list its tags")
            found.update(_read_tags(answer))
        return sorted(found)

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None. Falls back to GET if HEAD lacks the headers."""
        wanted = _digest_or_none(tag)
        url = self._endpoint.url(repository, "manifests", tag)
        answer = self._endpoint.call("HEAD", url, repository, headers=_ACCEPT)
        if answer.status == _NOT_FOUND:
            return None
        found = _described(answer) if answer.status == _OK else None
        if found is None:
            try:
                return self.manifest(repository, tag).descriptor
            except NotFound:
                return None
        if wanted is not None and found.digest != wanted:
            raise _other_digest(self._endpoint.shown(repository), wanted, found.digest)
        return found

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index, verified. Raises NotFound."""
        wanted = _digest_or_none(tag_or_digest)
        url = self._endpoint.url(repository, "manifests", tag_or_digest)
        answer = self._endpoint.call("GET", url, repository, headers=_ACCEPT)
        if answer.status != _OK:
            raise self._endpoint.failure(answer, repository, f"has no {tag_or_digest}")
        stated = answer.headers.get("Docker-Content-Digest", "")
        if wanted is None and stated:
            wanted = Digest.parse(stated)
        raw = read_manifest(
            answer.content, answer.headers.get("Content-Type", ""), wanted.algorithm if wanted else "sha256"
        )
        if wanted is not None and raw.descriptor.digest != wanted:
            raise _other_digest(self._endpoint.shown(repository), wanted, raw.descriptor.digest)
        return raw

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
        url = self._endpoint.url(repository, "blobs", str(wanted.digest))
        blocks = download(
            self._endpoint.client,
            url,
            size=wanted.size,
            offset=offset,
            length=length,
            auth=self._endpoint.login(repository),
        )
        blocks = self._explained(blocks, repository, wanted)
        whole = offset == 0 and length in (None, wanted.size)
        return verified(blocks, wanted) if whole and not caller_verifies else blocks

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        """Return True if the registry holds the blob with that size."""
        return self._has_blob(repository, wanted, push=False)

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        """Upload a file or bytes unless the registry has the blob."""
        if not self._has_blob(repository, wanted, push=True):
            push_blob(
                self._endpoint,
                repository,
                source,
                wanted,
                progress=progress,
                present=lambda: self._has_blob(repository, wanted, push=True),
            )

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        """Write a manifest by its digest, or under a tag."""
        self._put_manifest(repository, raw, tag)

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        """Write a manifest under a tag unless the tag names another one; checked before and after writing."""
        there = self.head(repository, tag)
        if there is None:
            self._put_manifest(repository, raw, tag)
            there = self.head(repository, tag)
        return there is not None and there.digest == raw.descriptor.digest

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        """Return the manifests with this subject."""
        return list_referrers(self._endpoint, self, repository, subject, artifact_type)

    def push_referrer(self, repository: str, manifest: Manifest) -> Descriptor:
        """Write a manifest that has a subject, and see that it is listed."""
        raw = manifest.raw()
        answer = self._put_manifest(repository, raw, "")
        make_findable(self._endpoint, self, repository, raw, answer)
        return as_referrer(raw)

    def _has_blob(self, repository: str, wanted: Descriptor, *, push: bool) -> bool:
        url = self._endpoint.url(repository, "blobs", str(wanted.digest))
        answer = self._endpoint.call("HEAD", url, repository, push=push)
        if answer.status == _OK:
            return answer.headers.get("Content-Length", str(wanted.size)) == str(wanted.size)
        if answer.status == _NOT_FOUND or answer.elsewhere:
            return False  # storage behind a redirect may refuse HEAD: send the blob again
        raise self._endpoint.failure(answer, repository, f"did not check for blob {wanted.digest.short}", push=push)

    def _put_manifest(self, repository: str, raw: RawManifest, tag: str) -> Answer:
        if len(raw.content) > MANIFEST_LIMIT:
            raise UsageError("the manifest is too large", why=f"{len(raw.content)} bytes; limit {MANIFEST_LIMIT}")
        digest = raw.descriptor.digest
        url = self._endpoint.url(repository, "manifests", tag_name(tag) if tag else str(digest))
        headers = {"Content-Type": raw.descriptor.media_type}
        answer = self._endpoint.call("PUT", url, repository, push=True, headers=headers, body=raw.content)
        if answer.status not in _WRITTEN:
            raise self._endpoint.failure(answer, repository, f"rejected manifest {tag or digest.short}", push=True)
        stated = answer.headers.get("Docker-Content-Digest", "")
        if stated and stated != str(digest):
            raise _other_digest(self._endpoint.shown(repository), digest, stated[:80])
        return answer

    def _explained(self, blocks: Iterator[bytes], repository: str, wanted: Descriptor) -> Iterator[bytes]:
        try:
            yield from blocks
        except HttpFailure as error:
            if error.answer is None or error.retryable:
                raise
            raise self._endpoint.failure(error.answer, repository, f"has no blob {wanted.digest}") from error


def _read_tags(answer: Answer) -> list[str]:
    try:
        tags = strict.member(strict.json_object(answer.content), "tags") or []
        strict.array(tags, _MOST_TAGS)
    except strict.Malformed as error:
        raise IntegrityFailure(
            "the registry sent a malformed list of tags", why=f"{error.why}, from {answer.place}"
        ) from error
    return [tag for tag in tags if _is_tag(tag)]


def _is_tag(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(tag_name(text))
    except UsageError:
        return False


def _digest_or_none(text: str) -> Digest | None:
    """Return the digest, or None for a tag. Raises UsageError for anything else."""
    if ":" in text:
        return Digest.parse(text)
    tag_name(text)
    return None


def _described(answer: Answer) -> Descriptor | None:
    """Return the descriptor in a HEAD answer's headers, or None if they are incomplete."""
    kind = media_type(answer.headers.get("Content-Type", ""))
    digest, length = answer.headers.get("Docker-Content-Digest", ""), answer.headers.get("Content-Length", "")
    if kind not in MANIFEST_TYPES or not digest or not (length.isascii() and length.isdigit()):
        return None
    if not 0 < int(length[:19]) <= MANIFEST_LIMIT:
        raise IntegrityFailure("the registry announced a manifest of an impossible size", why=f"{length[:19]} bytes")
    return Descriptor(kind, Digest.parse(digest), int(length[:19]))


def _other_digest(place: str, wanted: object, got: object) -> IntegrityFailure:
    return IntegrityFailure(
        f"{place} returned the wrong manifest",
        why=f"expected {wanted}, got {got}",
        fix="try again; if it happens again, the registry or a proxy in front of it is faulty",
    )

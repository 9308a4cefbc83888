"""Push one blob: in one streamed body, or in chunks if the registry requires them, with bounded retries.

Specification: distribution-spec, "Pushing a blob in chunks" and "POST then PUT".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from factory.errors import IntegrityFailure, NotFound
from factory.io.http.client import NETWORK_ERRORS, Answer, Upload
from factory.io.http.failures import WORTH_ANOTHER_TRY, Trouble, bad_status
from factory.io.progress import Progress
from factory.oci.digest import Descriptor
from factory.registry.endpoint import Endpoint
from factory.registry.limits import check_size, check_time

CHUNK = 4 * 1024 * 1024  # bytes; GHCR refuses larger chunks
_LARGEST_CHUNK = 256 * 1024 * 1024
_STORED = frozenset({200, 201, 204})
_WANTS_CHUNKS = frozenset({404, 405, 411, 415, 501})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})", re.ASCII)
_UNAUTHORIZED, _RANGE_NOT_SATISFIABLE = 401, 416


def push_blob(
    endpoint: Endpoint,
    repository: str,
    source: Path | bytes,
    wanted: Descriptor,
    *,
    progress: Progress,
    present: Callable[[], bool],
) -> None:
    """Upload a blob that the registry does not have. present: asks the registry if it has the blob now.

    A failed attempt starts over, within the usual limits for retries. An expired token is renewed once.
    """
    size = len(source) if isinstance(source, bytes) else _size_of(source)
    if size != wanted.size:
        raise IntegrityFailure(
            "the file changed before it was sent",
            why=f"expected {wanted.size} bytes, it has {size}",
            fix="build it again",
        )
    check_size(endpoint.host, size)
    shown = isinstance(source, Path)
    if shown:
        progress.begin(f"push {wanted.digest.short}", size)
    try:
        _BlobUpload(endpoint, repository, source, wanted, progress=progress, present=present).run()
    finally:
        if shown:
            progress.end()


class _BlobUpload:
    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        source: Path | bytes,
        wanted: Descriptor,
        *,
        progress: Progress,
        present: Callable[[], bool],
    ) -> None:
        self._endpoint = endpoint
        self._client = endpoint.client
        self._repository = repository
        self._source = source
        self._wanted = wanted
        self._progress = progress
        self._present = present
        self._patience = self._client.patience(endpoint.base, endpoint.host)
        self._renewed = False

    def run(self) -> None:
        while True:
            location, smallest = self._start()
            body = self._body(0, self._wanted.size)
            started = monotonic()
            cause: BaseException | None = None
            try:
                answer = self._send("PUT", self._finishing(location), body)
            except NETWORK_ERRORS as error:
                trouble, cause = self._client.explain(error, location), error
            else:
                if answer.status in _STORED:
                    return self._agree(answer)
                if answer.status in _WANTS_CHUNKS and "UPLOAD_UNKNOWN" not in answer.said():
                    _rewind(body)
                    location, smallest = self._start()
                    return self._agree(self._in_chunks(location, max(CHUNK, smallest)))
                trouble = self._trouble_of(answer)
            if _rewind(body):
                self._patience.moved()
            check_time(self._endpoint.host, self._wanted.size, monotonic() - started)
            self._patience.failed(trouble, cause)
            if cause is not None and self._present():  # the answer was lost, not the blob
                return None

    def _start(self) -> tuple[str, int]:
        """Open an upload session. Return its URL and the smallest chunk in bytes that the registry accepts."""
        url = self._endpoint.url(self._repository, "blobs", "uploads", "")
        answer = self._endpoint.call(
            "POST", url, self._repository, push=True, headers={"Content-Length": "0"}, again=True
        )
        if answer.status not in (200, 201, 202) or "Location" not in answer.headers:
            raise self._endpoint.failure(answer, self._repository, "does not accept uploads", push=True)
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        smallest = int(least[:12]) if least.isascii() and least.isdigit() else 0
        return self._endpoint.resolve(url, answer.headers["Location"]), min(smallest, _LARGEST_CHUNK)

    def _body(self, start: int, size: int) -> bytes | Upload:
        if isinstance(self._source, bytes):
            return self._source[start : start + size]
        return Upload(self._source, start, size, self._progress.advance) if size else b""

    def _finishing(self, location: str) -> str:
        return f"{location}{'&' if '?' in location else '?'}digest={self._wanted.digest}"

    def _send(self, method: str, url: str, body: bytes | Upload, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a body once. Raises NETWORK_ERRORS."""
        self._login = self._endpoint.login(self._repository, push=True) if self._endpoint.is_ours(url) else None
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        reply = self._client.open(method, url, headers=sent, body=body, auth=self._login, named_by=self._endpoint.base)
        with contextlib.closing(reply):
            return reply.answer()

    def _trouble_of(self, answer: Answer) -> Trouble:
        """Return why to retry after a refusal, or raise if a retry is pointless. A fresh token is tried once."""
        if answer.status == _UNAUTHORIZED and not self._renewed and self._login is not None:
            self._renewed = True
            if self._login.challenged(answer):
                return Trouble(f"{self._endpoint.host} requires a new token", status=answer.status, wait=0.0)
        if answer.status in WORTH_ANOTHER_TRY:
            return bad_status(answer)
        if "UPLOAD_UNKNOWN" in answer.said() or "UPLOAD_INVALID" in answer.said():
            return Trouble(f"{self._endpoint.host} lost the upload", why=answer.said(), status=answer.status)
        if answer.status == _RANGE_NOT_SATISFIABLE:
            raise self._endpoint.failure(answer, self._repository, "rejected the size of a chunk", push=True)
        raise self._endpoint.failure(answer, self._repository, f"rejected blob {self._wanted.digest.short}", push=True)

    def _in_chunks(self, location: str, chunk: int) -> Answer:
        """PATCH chunk by chunk, then PUT. After a failure, resume where the registry's upload status says."""
        at = 0
        while at < self._wanted.size:
            size = min(chunk, self._wanted.size - at)
            body = self._body(at, size)
            cause: BaseException | None = None
            try:
                answer = self._send("PATCH", location, body, {"Content-Range": f"{at}-{at + size - 1}"})
            except NETWORK_ERRORS as error:
                trouble, cause = self._client.explain(error, location), error
            else:
                if answer.status in (201, 202, 204):
                    location = self._endpoint.resolve(location, answer.headers.get("Location", location))
                    at += size
                    self._patience.progressed()
                    continue
                if answer.status == _RANGE_NOT_SATISFIABLE:
                    trouble = Trouble(f"{self._endpoint.host} refused a chunk", why=answer.said(), status=answer.status)
                else:
                    trouble = self._trouble_of(answer)
            _rewind(body)
            self._patience.failed(trouble, cause)
            location, kept = self._kept(location)
            self._progress.advance(kept - at)
            at = kept
        answer = self._send("PUT", self._finishing(location), b"")
        if answer.status not in _STORED:
            raise self._endpoint.failure(answer, self._repository, "did not finish an upload", push=True)
        return answer

    def _kept(self, location: str) -> tuple[str, int]:
        """Return the URL to continue at and how many bytes the registry has (distribution-spec, "upload status")."""
        answer = self._endpoint.call("GET", location, self._repository, push=True)
        found = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
        if answer.status != 204 or found is None:  # noqa: PLR2004
            raise self._endpoint.failure(answer, self._repository, "lost an upload", push=True)
        kept = int(found[1]) + 1 if found[1] != "0" else 0  # registries send 0-0 for no bytes
        return self._endpoint.resolve(location, answer.headers.get("Location", location)), min(kept, self._wanted.size)

    def _agree(self, answer: Answer) -> None:
        """Raise IntegrityFailure unless the registry confirms the digest, or has the blob when asked."""
        digest = answer.headers.get("Docker-Content-Digest", "")
        if digest != str(self._wanted.digest) and (digest or not self._present()):
            raise IntegrityFailure(
                f"{self._endpoint.shown(self._repository)} did not store the bytes that were sent",
                why=f"expected {self._wanted.digest}, got {digest[:80] or 'nothing'}",
                fix="try again; if it happens again, the registry or a proxy in front of it is faulty",
            )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise NotFound(f"the file to push does not exist: {path}", fix="build it first") from error


def _rewind(body: bytes | Upload) -> bool:
    """Rewind the body for another attempt. Return True if any of it was sent."""
    return isinstance(body, Upload) and body.rewind() > 0

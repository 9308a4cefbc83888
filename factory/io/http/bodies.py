"""Bodies of HTTP messages: part of a file as a request's body, and an answer that is read as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests

from factory.errors import IntegrityFailure
from factory.io.http.failures import Answer, HttpFailure
from factory.io.http.settings import host_of, redacted
from factory.io.plain import reading

DOCUMENT_LIMIT = 4 * 1024 * 1024  # bytes of an answer that is kept in memory
UPLOAD_BLOCK = 256 * 1024  # bytes passed to the socket at a time; the idle time limit applies to each
_ERRORS = 400  # the first error status


class Upload:
    """Part of a file as a request body. It is streamed, and read again for each attempt."""

    def __init__(self, path: Path, start: int, size: int, sent: Callable[[int], None] = lambda _: None) -> None:
        self._path = path
        self._start = start
        self.size = size
        self._sent = sent
        self._counted = 0

    def __iter__(self) -> Iterator[bytes]:
        self.rewind()
        left = self.size
        with reading(self._path) as file:
            file.seek(self._start)
            while left:
                block = file.read(min(left, UPLOAD_BLOCK))
                if not block:
                    raise IntegrityFailure(f"{self._path} became shorter while it was sent", fix="try again")
                left -= len(block)
                yield block
                self._counted += len(block)
                self._sent(len(block))

    @property
    def is_underway(self) -> bool:
        """Whether a part of it was sent."""
        return self._counted > 0

    def rewind(self) -> int:
        """Report what was sent as undone, and return how many bytes that was."""
        count, self._counted = self._counted, 0
        if count:
            self._sent(-count)
        return count


class Reply:
    """An answer whose body has not been read. Close it, or read it to its end."""

    def __init__(self, response: requests.Response, method: str, url: str, *, elsewhere: bool) -> None:
        self._response = response
        self._method = method
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url  # may contain a signature: never shown
        self.elsewhere = elsewhere
        self._unread: bytes | None = None

    def length(self) -> int | None:
        """Return Content-Length; None if it is missing or not a number."""
        text = self.headers.get("Content-Length", "").strip()
        return int(text[:20]) if text.isascii() and text.isdigit() else None

    def read(self, count: int) -> bytes:
        """Return up to count bytes; fewer only before the end, none at the end."""
        if self._unread is not None:
            data, self._unread = self._unread[:count], self._unread[count:]
        else:
            data = self._response.raw.read(count, decode_content=False) or b""
        return data

    def unread(self, content: bytes) -> None:
        """Put back bytes that were read."""
        self._unread = content

    def answer(self, limit: int = DOCUMENT_LIMIT) -> Answer:
        """Read the whole answer; of an error page, only the first limit bytes.

        Raises IntegrityFailure if any other answer has more than limit bytes, OSError if it is truncated.
        """
        content = bytearray()
        if self._method != "HEAD":
            while len(content) <= limit and (block := self.read(min(limit + 1 - len(content), 1 << 16))):
                content += block
            wanted = self.length()
            if self.status >= _ERRORS:
                wanted = None
                del content[limit:]
            if len(content) > limit:
                raise IntegrityFailure(
                    f"{host_of(self.url)} sent a document that is too large",
                    why=f"{redacted(self.url)} has more than {limit} bytes",
                )
            if wanted is not None and len(content) != wanted and "Transfer-Encoding" not in self.headers:
                raise ConnectionError(f"{len(content)} of {wanted} bytes arrived")
        return Answer(self.status, self.headers, bytes(content), redacted(self.url), self.elsewhere)

    def check_encoding(self) -> None:
        """Raise HttpFailure if the body is compressed, although identity encoding was requested."""
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            host = host_of(self.url)
            raise HttpFailure(
                f"{host} sent a compressed body",
                why=f"Content-Encoding is {encoding[:20]!r}, although identity was requested",
                fix="a proxy may do this: ask its administrators",
                host=host,
                status=self.status,
                retryable=False,
            )

    def close(self) -> None:
        """Return the connection to the pool, or close it if unread data is left."""
        self._response.close()

"""Downloads that survive resets, stalls, truncation, and expired redirects (RFC 9110, 14: Range requests)."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from factory.errors import IntegrityFailure, OnlyWhole
from factory.io.http.client import Authorizer, Client, Reply
from factory.io.http.failures import NETWORK_ERRORS, WORTH_ANOTHER_TRY, HttpFailure, Trouble, bad_status
from factory.io.http.settings import host_of, redacted

BLOCK = 256 * 1024  # bytes yielded at a time; a kill loses at most one block
_SMALL_BLOCK = 64 * 1024  # after a failure; a reset loses at most one block
_ERROR_LIMIT = 64 * 1024
_SHORTCUT_LIFE = 120.0  # seconds; signed redirects are valid for some minutes
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII)
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416


def download(
    client: Client,
    url: str,
    *,
    size: int,
    offset: int = 0,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    auth: Authorizer | None = None,
) -> Iterator[bytes]:
    """Yield the bytes of a document of exactly ``size`` bytes, from offset on, in blocks of at most 1 MiB.

    length: how many bytes; None: to the end. After an interruption, the download continues with a Range request.
    Raises HttpFailure, OnlyWhole if a part was requested and the server does not serve ranges, or IntegrityFailure if
    the document has another size. The caller checks the digest.
    """
    stop = size if length is None else offset + length
    if not 0 <= offset <= stop <= size:
        raise IntegrityFailure("the requested bytes do not exist", why=f"{offset} to {stop} of {size}")
    return Download(client, url, size=size, start=offset, stop=stop, headers=headers or {}, auth=auth).blocks()


class _Interrupted(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.what)
        self.trouble = trouble


class Download:
    """Downloads the bytes from start to stop of a document of ``size`` bytes, continuing after interruptions.

    Each attempt requests the original address again, so an expired signed redirect does not matter. Only parts (with
    stop before the end) remember the redirect's target for a while, because there are many of them.
    """

    def __init__(
        self,
        client: Client,
        url: str,
        *,
        size: int,
        start: int,
        stop: int,
        headers: Mapping[str, str],
        auth: Authorizer | None,
    ) -> None:
        self._client = client
        self._url = url
        self._size = size
        self._at = start
        self._stop = stop
        self._headers = headers
        self._auth = auth
        self._is_part = stop < size
        self._whole = False  # a Range request failed: fetch the whole document and skip what is known
        self._announced: int | None = None  # the length of a whole answer
        self._since_failure = 0
        self._patience = client.patience(url)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes in blocks. Raises HttpFailure or IntegrityFailure."""
        while self._at < self._stop:
            cause: BaseException | None = None
            try:
                with contextlib.closing(self._open()) as reply:
                    yield from self._read(reply)
                continue
            except _Interrupted as error:
                trouble = error.trouble
            except NETWORK_ERRORS as error:
                trouble, cause = self._client.explain(error, self._url), error
            position = f"at byte {self._at} of {self._size}"
            self._since_failure = 0
            self._client.shortcuts.pop(self._url, None)
            self._patience.failed(
                replace(trouble, why=f"{trouble.why}, {position}" if trouble.why else position), cause
            )

    def _open(self) -> Reply:
        ranged = self._headers
        if not self._whole and (self._at or self._is_part):
            ranged = {**self._headers, "Range": f"bytes={self._at}-{self._stop - 1}"}
        reply = self._shortcut(ranged)
        if reply is None:
            reply = self._client.open("GET", self._url, headers=ranged, auth=self._auth)
            if reply.elsewhere and self._is_part:
                self._client.shortcuts[self._url] = (reply.url, time.monotonic() + _SHORTCUT_LIFE)
        return reply

    def _shortcut(self, headers: Mapping[str, str]) -> Reply | None:
        """Request the target of a recent redirect directly; None if there is none, or it has expired."""
        target, until = self._client.shortcuts.get(self._url, ("", 0.0))
        if time.monotonic() < until and self._is_part:
            reply = self._client.open("GET", target, headers=headers, named_by=self._url)
            if reply.status == _PARTIAL:
                return reply
            reply.close()
        self._client.shortcuts.pop(self._url, None)
        return None

    def _read(self, reply: Reply) -> Iterator[bytes]:
        """Yield the bytes of this reply that are new."""
        self._check_status(reply)
        reply.check_encoding()
        skip = self._check_place(reply)
        size = self._client.rate.block(BLOCK if self._patience.failures == 0 else _SMALL_BLOCK)
        while skip:
            skip -= len(self._next(reply, min(size, skip)))
        while self._at < self._stop:
            block = self._next(reply, min(size, self._stop - self._at))
            self._at += len(block)
            self._client.flowed.add(host_of(self._url))
            self._since_failure += len(block)
            if self._patience.failures and self._since_failure >= _SMALL_BLOCK:
                self._patience.progressed()
            yield block
        if self._stop == self._size and reply.length() is None and reply.read(1):
            raise self._wrong_size("it is longer")

    def _next(self, reply: Reply, count: int) -> bytes:
        block = reply.read(count)
        if not block:
            raise _Interrupted(Trouble(f"{host_of(self._url)} ended the answer too early"))
        self._client.rate.take(len(block))
        return block

    def _check_status(self, reply: Reply) -> None:
        """Raise unless the reply has the bytes."""
        if reply.status in (_OK, _PARTIAL):
            return
        host = host_of(reply.url)
        if reply.status == _RANGE_NOT_SATISFIABLE and not self._whole:
            if self._announced is not None and self._announced <= self._at:
                raise self._wrong_size(f"it has {self._announced}")
            self._whole = True
            raise _Interrupted(Trouble(f"{host} has no such range", status=reply.status))
        answer = reply.answer(_ERROR_LIMIT)
        if reply.status in WORTH_ANOTHER_TRY:
            raise _Interrupted(bad_status(answer))
        if reply.elsewhere and reply.status in (400, 401, 403, 404, 410):
            raise _Interrupted(
                Trouble(
                    f"{host} answered {reply.status}",
                    why=f"{host_of(self._url)} redirected there; its signed address may have expired",
                    status=reply.status,
                )
            )
        raise HttpFailure(
            f"{host} answered {reply.status} for {redacted(reply.url)}",
            why=answer.said(),
            host=host,
            status=reply.status,
            attempts=self._patience.failures + 1,
            retryable=False,
            answer=answer,
        )

    def _check_place(self, reply: Reply) -> int:
        """Return how many bytes of the reply are already known. Raises if it contains another range or size."""
        length = reply.length()
        if reply.status == _OK:
            if length is not None and (length > self._size or (length < self._size and self._whole)):
                raise self._wrong_size(f"the answer has {length}")
            self._announced = length
            if self._is_part and self._at:
                raise OnlyWhole(
                    f"{host_of(reply.url)} does not serve parts of a file",
                    why="it answered a Range request with the whole file",
                    fix="fetch the whole file",
                )
            return self._at
        found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        fits = found is not None and int(found[1]) == self._at and self._at <= int(found[2]) < self._stop
        if found is None or not fits or found[3] not in ("*", str(self._size)) or self._whole:
            self._whole = True
            shown = reply.headers.get("Content-Range", "nothing")[:60]
            raise _Interrupted(
                Trouble(
                    f"{host_of(reply.url)} answered with a wrong range",
                    why=f"expected bytes {self._at}-{self._stop - 1}/{self._size}, got {shown!r}",
                )
            )
        return 0

    def _wrong_size(self, why: str) -> IntegrityFailure:
        return IntegrityFailure(
            f"{redacted(self._url)} has the wrong size",
            why=f"expected {self._size} bytes; {why}",
            fix="try again; if it repeats, the registry or a proxy in front of it is at fault",
        )

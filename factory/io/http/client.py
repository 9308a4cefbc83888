"""The only module that opens connections: timeouts, retries, explicit redirects, typed errors (RFC 9110).

Certificates are always verified. ``.netrc`` and cookies are never used. Proxies and REQUESTS_CA_BUNDLE come from the
environment, as in requests, and SSL_CERT_FILE as in OpenSSL. Loopback addresses never go through a proxy. Addresses
named by a server (named_by) are checked: a public server cannot direct requests to a private network (hosts,
connections).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from factory.errors import IntegrityFailure
from factory.io.http import certificates
from factory.io.http.connections import Gate, GatedAdapter, LeadsInside
from factory.io.http.failures import (
    NETWORK_ERRORS,
    WORTH_ANOTHER_TRY,
    Answer,
    HttpFailure,
    Trouble,
    bad_status,
    explain,
)
from factory.io.http.hosts import (
    LOOPBACK,
    MAY_NAME,
    PUBLIC,
    checked_origin,
    is_listed,
    is_loopback,
    network_of_literal,
)
from factory.io.http.rate import Rate
from factory.io.http.retry import Patience
from factory.io.http.settings import HttpSettings, host_of, origin_of, redacted
from factory.io.plain import reading

__all__ = ["NETWORK_ERRORS", "Answer", "Authorizer", "Client", "HttpFailure", "HttpSettings", "Reply", "Upload"]

DOCUMENT_LIMIT = 4 * 1024 * 1024  # bytes of an answer that is kept in memory
UPLOAD_BLOCK = 256 * 1024  # bytes passed to the socket at a time; the idle time limit applies to each
UPLOAD_ANSWER = 600.0  # seconds; a registry that checks or moves gigabytes takes long to answer
_ERRORS = 400  # the first error status
_REDIRECTS = 5
_CHALLENGES = 8  # attempts of one request to log in: two stored logins with three ways each, and none
_SAFE = frozenset({"GET", "HEAD"})
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_FOLLOWED = frozenset({301, 302, 303, 307, 308})
_PRIVATE_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")


class Authorizer(Protocol):
    """Provides the Authorization header, which is sent only to the originally requested host."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers to add."""

    def challenged(self, answer: Answer) -> bool:
        """Handle a 401 or 403 answer. Return True if another attempt with new headers() makes sense."""


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


class Client:
    """Sends requests. Thread-safe."""

    def __init__(self, settings: HttpSettings | None = None, notice: Callable[[str], None] = lambda _: None) -> None:
        self.settings = settings or HttpSettings()
        self.notice = notice  # called before longer waits
        self.rate = Rate(self.settings.limit_rate)
        self._verify = certificates.trusted(self.settings.ca_bundle)
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": self.settings.user_agent, "Accept-Encoding": "identity"})
        self._session.auth = _unchanged  # without one, requests would read .netrc
        self.shortcuts: dict[str, tuple[str, float]] = {}  # redirect targets of downloads, and their expiry
        self._reached: dict[tuple[str, int], str] = {}  # the network of each host
        self._adapters: dict[frozenset[str] | None, GatedAdapter] = {}  # by the networks they may connect to
        for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response"):
            logging.getLogger(name).addFilter(_without_queries)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        auth: Authorizer | None = None,
        limit: int = DOCUMENT_LIMIT,
        follow: bool = True,
        again: bool | None = None,
        named_by: str = "",
    ) -> Answer:
        """Send a request and read the answer. Statuses that are worth a retry are retried; all others are returned.

        limit: maximum size of the answer, in bytes. follow: whether to follow redirects. again: whether the request
        may be repeated after a failure; None: if the method is idempotent. named_by: the URL whose server named this
        one; '' if the user did. Raises HttpFailure.
        """
        host = host_of(url)
        repeatable = again if again is not None else method in _REPEATABLE
        patience = Patience(self.settings, host, self.notice)
        while True:
            cause: BaseException | None = None
            try:
                reply = self.open(method, url, headers=headers, body=body, auth=auth, follow=follow, named_by=named_by)
                with contextlib.closing(reply):
                    reply.check_encoding()
                    answer = reply.answer(limit)
                if answer.status not in WORTH_ANOTHER_TRY:
                    return answer
                trouble = bad_status(answer)
            except NETWORK_ERRORS as error:
                trouble, cause = explain(error, url, self._proxy_for(url)), error
            not_processed = trouble.status == requests.codes.too_many_requests or not trouble.connected
            patience.failed(trouble, cause, again=repeatable or not_processed)

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload | None = None,
        auth: Authorizer | None = None,
        follow: bool = True,
        named_by: str = "",
    ) -> Reply:
        """Make one attempt: authenticate if challenged, follow redirects. Raises NETWORK_ERRORS and HttpFailure.

        The caller closes the reply. An Upload is sent only once: the caller must handle a 401 to it.
        """
        for _ in range(_CHALLENGES):
            own = dict(headers or {}) | (dict(auth.headers()) if auth else {})
            send = self._follow if follow else self._once
            reply = send(method, url, own, body, named_by)
            if auth is None or reply.elsewhere or reply.status not in (401, 403) or isinstance(body, Upload):
                return reply
            with contextlib.closing(reply):
                answer = reply.answer()
            reply.unread(answer.content)
            if not auth.challenged(answer):
                break
        return reply

    def close(self) -> None:
        """Close all connections."""
        for adapter in self._adapters.values():
            adapter.close()

    def explain(self, error: BaseException, url: str) -> Trouble:
        """Describe one of NETWORK_ERRORS."""
        return explain(error, url, self._proxy_for(url))

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Upload | None, named_by: str
    ) -> Reply:
        asked, here = origin_of(url), url
        for _ in range(_REDIRECTS + 1):
            reply = self._once(method, here, headers, body, named_by)
            reply.elsewhere = origin_of(here) != asked
            location = reply.headers.get("Location", "")
            if reply.status not in _FOLLOWED or not location:
                return reply
            reply.close()
            target = _next(here, location, method, reply.status)
            if origin_of(target) != origin_of(here):
                for name in _PRIVATE_HEADERS:
                    headers.pop(name, None)
            here, named_by = target, here
        raise _refused(url, f"it redirects more than {_REDIRECTS} times")

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Upload | None, named_by: str
    ) -> Reply:
        """Send one request, bypassing requests' own handling of redirects, cookies, and logins."""
        prepared = self._session.prepare_request(requests.Request(method, url, headers=dict(headers)))
        if body is not None:
            prepared.body = body  # type: ignore[assignment]
            prepared.headers["Content-Length"] = str(len(body) if isinstance(body, bytes) else body.size)
        response = self.exchange(prepared, named_by, uploading=isinstance(body, Upload))
        return Reply(response, method, url, elsewhere=False)

    def exchange(
        self, prepared: requests.PreparedRequest, named_by: str, *, uploading: bool = False
    ) -> requests.Response:
        """Send a prepared request once and return the answer with its body unread. The caller closes it.

        Raises NETWORK_ERRORS, and HttpFailure for an address that named_by must not refer to.
        """
        url = prepared.url or ""
        times = (self.settings.connect_timeout, self.settings.idle_timeout)
        if uploading:
            # urllib3 applies the connect timeout to sending
            times = (self.settings.idle_timeout, max(UPLOAD_ANSWER, self.settings.idle_timeout))
        where: dict[str, Any] = self._surroundings(url)
        try:
            response = self._adapter(url, named_by).send(
                prepared, stream=True, timeout=times, verify=where["verify"], cert=None, proxies=where["proxies"]
            )
        except LeadsInside as found:
            raise _inside(found, named_by or url) from found
        if response.status_code == requests.codes.proxy_authentication_required:
            response.close()
            proxy = self._proxy_for(url)
            raise HttpFailure(
                f"the proxy {proxy} requires a login",
                fix="set HTTPS_PROXY and HTTP_PROXY to http://USER:PASSWORD@HOST:PORT",
                host=proxy,
                status=response.status_code,
                retryable=False,
            )
        return response

    def _adapter(self, url: str, named_by: str) -> GatedAdapter:
        """Return the adapter for connections that named_by may cause. Raises LeadsInside."""
        allowed = None
        if named_by and origin_of(url) != origin_of(named_by):
            _, namer, its_port = origin_of(named_by)
            network = self._reached.get((namer, its_port)) or network_of_literal(namer) or PUBLIC
            allowed = MAY_NAME[network]
            _, host, port = origin_of(url)
            literal = network_of_literal(host)  # the only possible check if a proxy makes the connection
            if literal and literal not in allowed and not is_listed(host, port, self.settings.internal_hosts):
                raise LeadsInside(host, host, literal)
        if allowed not in self._adapters:
            gate = Gate(self._reached, allowed, self.settings.internal_hosts)
            self._adapters.setdefault(allowed, GatedAdapter(gate))
        return self._adapters[allowed]

    def _surroundings(self, url: str) -> dict[str, Any]:
        """Return proxies and certificates for a URL, from the settings or else from the environment."""
        found = self._session.merge_environment_settings(url, {}, None, self._verify, None)
        if is_loopback(urlsplit(url).hostname or ""):
            found["proxies"] = {}
        if self._verify is True:
            found["verify"] = certificates.of_environment(found["verify"])
        return dict(found)

    def _proxy_for(self, url: str) -> str:
        try:
            proxy = requests.utils.select_proxy(url, self._surroundings(url)["proxies"])
        except ValueError:
            return ""
        return host_of(proxy if "//" in proxy else f"//{proxy}") if proxy else ""


def _next(here: str, location: str, method: str, status: int) -> str:
    """Return the target of a redirect. Raises HttpFailure if following it is not safe."""
    try:
        target = urljoin(here, location.encode("latin-1", "replace").decode("utf-8", "replace"))
        scheme, _, _ = checked_origin(target)
    except ValueError as error:
        raise _refused(here, "it redirects to an invalid web address") from error
    if scheme == "http" and origin_of(here)[0] == "https":
        raise _refused(here, f"it redirects from https to plain http ({redacted(target)})")
    if method not in _SAFE and status not in (307, 308):
        raise _refused(here, f"it redirects {method} requests to {redacted(target)}", "use that address instead")
    return target


def _refused(url: str, why: str, fix: str = "check the registry's address") -> HttpFailure:
    host = host_of(url)
    return HttpFailure(
        f"refused to follow {host}", why=f"{why} (requested: {redacted(url)})", fix=fix, host=host, retryable=False
    )


def _inside(found: LeadsInside, namer: str) -> HttpFailure:
    host = host_of(namer)
    shown = f"[{found.host}]" if ":" in found.host else found.host
    place = "this machine" if found.network == LOOPBACK else f"a {found.network} address"
    return HttpFailure(
        f"refused to follow {host} to {shown}",
        why=f"that is {place}, which a registry on another network has no reason to name"
        + (f" ({found.address})" if found.address != found.host else ""),
        fix=f"ask who runs {host}; if it is right, list {shown} in the setting internal_hosts of your config.toml",
        host=host,
        retryable=False,
    )


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _without_queries(record: logging.LogRecord) -> bool:
    """Remove queries from log records: urllib3 logs whole URLs, whose queries may be signatures."""
    record.msg, record.args = re.sub(r"\?[^\s\"']*", "?...", record.getMessage()), ()
    return True

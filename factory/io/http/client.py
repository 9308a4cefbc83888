"""The only module that opens connections: timeouts, retries, explicit redirects, typed errors (RFC 9110).

Certificates are always verified (certificates). ``.netrc`` and cookies are never used. Proxies come from the
environment, as in requests. Loopback addresses never go through a proxy. Addresses named by a server (named_by) are
checked: a public server cannot direct requests to a private network (hosts, connections).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urljoin

import requests

from factory.errors import UsageError
from factory.io.http import certificates
from factory.io.http.bodies import DOCUMENT_LIMIT, Reply, Upload
from factory.io.http.connections import Gate, LeadsInside, TrustingAdapter
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
from factory.io.http.proxies import Proxy, bypassed
from factory.io.http.rate import Rate
from factory.io.http.retry import Patience
from factory.io.http.settings import HttpSettings, host_of, origin_of, redacted

__all__ = ["NETWORK_ERRORS", "Answer", "Authorizer", "Client", "HttpFailure", "HttpSettings", "Reply", "Upload"]

UPLOAD_ANSWER = 600.0  # seconds; a registry that checks or moves gigabytes takes long to answer
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


class Client:
    """Sends requests. Thread-safe."""

    def __init__(self, settings: HttpSettings | None = None, notice: Callable[[str], None] = lambda _: None) -> None:
        self.settings = settings or HttpSettings()
        self.notice = notice  # called before longer waits
        self.rate = Rate(self.settings.limit_rate)
        certificates.require_usable(self.settings.ca_bundle)
        self._trust = certificates.trust(self.settings.ca_bundle)
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": self.settings.user_agent, "Accept-Encoding": "identity"})
        self._session.auth = _unchanged  # without one, requests would read .netrc
        self.flowed: set[str] = set()  # hosts that have sent or received content
        self.shortcuts: dict[str, tuple[str, float]] = {}  # redirect targets of downloads, and their expiry
        self._reached: dict[tuple[str, int], str] = {}  # the network of each host
        self._adapters: dict[frozenset[str] | None, TrustingAdapter] = {}  # by the networks they may connect to
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
        repeatable = again if again is not None else method in _REPEATABLE
        patience = self.patience(url)
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

    def patience(self, url: str, host: str = "") -> Patience:
        """Return the retry policy for one request. host: the name for messages, if it is not the URL's."""
        return Patience(self.settings, host or host_of(url), self.notice, lambda: host_of(url) in self.flowed)

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
        try:
            response = self.exchange(prepared, named_by, uploading=isinstance(body, Upload))
        finally:
            if isinstance(body, Upload) and body.is_underway:
                self.flowed.add(host_of(url))
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
        try:
            response = self._adapter(url, named_by).send(
                prepared, stream=True, timeout=times, proxies=self._proxies(url)
            )
        except LeadsInside as found:
            raise _inside(found, named_by or url) from found
        if response.status_code == requests.codes.proxy_authentication_required:
            response.close()
            raise _wants_login(self._proxy(url))
        return response

    def _adapter(self, url: str, named_by: str) -> TrustingAdapter:
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
            self._adapters.setdefault(allowed, TrustingAdapter(self._trust, gate))
        return self._adapters[allowed]

    def _proxies(self, url: str) -> dict[str, str]:
        """Return the proxy for a URL, by scheme, as requests takes it. Raises UsageError for an invalid address."""
        proxy = self._proxy(url)
        return {origin_of(url)[0]: proxy.url} if proxy else {}

    def _proxy(self, url: str) -> Proxy | None:
        _, host, port = origin_of(url)
        if is_loopback(host) or bypassed(host, port):
            return None
        found = self._session.merge_environment_settings(url, {}, None, None, None)["proxies"]
        address = requests.utils.select_proxy(url, found)
        return Proxy.parse(address) if address else None

    def _proxy_for(self, url: str) -> str:
        """Return HOST:PORT of the proxy for a URL, '' for none."""
        try:
            proxy = self._proxy(url)
        except (ValueError, UsageError):
            return ""
        return proxy.place if proxy else ""


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


def _wants_login(proxy: Proxy | None) -> HttpFailure:
    """Return the error for a status 407: the proxy got no login, or refused the one that it got."""
    place, login = (proxy.place, proxy.login) if proxy else ("in the environment", "")
    fix = "set HTTPS_PROXY and HTTP_PROXY to http://USER:PASSWORD@HOST:PORT"
    return HttpFailure(
        f"the proxy {place} {'refuses the login in its address' if login else 'requires a login'}",
        fix=fix if not login else "correct USER:PASSWORD in HTTPS_PROXY and HTTP_PROXY",
        host=place,
        status=requests.codes.proxy_authentication_required,
        retryable=False,
    )

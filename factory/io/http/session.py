"""Runs a library's own ``requests.Session`` over our client's connections.

The library chooses its requests, and requests follows redirects. Certificates, proxies, timeouts, document sizes, and
checks of where a server may send us are the client's, because they are applied below the session, in its adapter.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import requests
import requests.adapters

from factory.io.http.bodies import DOCUMENT_LIMIT, Reply
from factory.io.http.client import Client, HttpFailure
from factory.io.http.settings import host_of, origin_of, redacted

_REDIRECTS = 5


class BorrowedAdapter(requests.adapters.BaseAdapter):
    """Sends a session's requests through our client.

    base: the registry's address. An address on another host was named by the registry.
    """

    def __init__(self, client: Client, base: str) -> None:
        super().__init__()
        self._client = client
        self._base = base

    def send(  # noqa: PLR0917 - requests' signature, here and below
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,  # noqa: ARG002
        verify: bool | str = True,  # noqa: ARG002, FBT001, FBT002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> requests.Response:
        """Send one request. Documents are read here, up to the limit; only a stream's body is left unread.

        Raises NETWORK_ERRORS, HttpFailure, and IntegrityFailure for a document that is too large.
        """
        url = request.url or ""
        if origin_of(url) != origin_of(self._base):
            for name in ("Authorization", "Cookie"):
                request.headers.pop(name, None)
            if self._base.startswith("https:") and not url.startswith("https:"):
                raise _downgraded(url, self._base)
        response = self._client.exchange(request, named_by=self._base)
        if not stream or response.status_code != requests.codes.ok:
            reply = Reply(response, request.method or "", url, elsewhere=False)
            try:
                content = reply.answer(DOCUMENT_LIMIT).content
            finally:
                reply.close()
            response.raw = io.BytesIO(content)
        return response

    def close(self) -> None:
        """Do nothing: the client owns the connections."""


def borrow(session: requests.Session, client: Client, base: str) -> None:
    """Make a session send everything through our client, with no .netrc, no compression, and few redirects.

    It keeps its own User-Agent, because a proxy may treat clients differently.
    """
    session.auth = _unchanged  # without one, requests would read .netrc
    session.headers["Accept-Encoding"] = "identity"
    session.max_redirects = _REDIRECTS
    session.adapters.clear()
    for scheme in ("https://", "http://"):
        session.mount(scheme, BorrowedAdapter(client, base))


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _downgraded(url: str, base: str) -> HttpFailure:
    host = host_of(base)
    return HttpFailure(
        f"refused to follow {host}",
        why=f"it redirects from https to plain http ({redacted(url)})",
        fix=f"ask who runs {host}",
        host=host,
        retryable=False,
    )

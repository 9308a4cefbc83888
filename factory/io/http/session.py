"""Lends our connections to a library that brings its own ``requests.Session``.

The library decides what it asks for and follows redirects in requests' way. Certificates, proxies, time limits, the
size of documents and where a server may send us stay ours: all of it is below the session, in its adapter.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import requests
import requests.adapters

from factory.io.http.client import DOCUMENT_LIMIT, Client, HttpFailure, Reply
from factory.io.http.settings import host_of, origin_of, redacted

_REDIRECTS = 5


class BorrowedAdapter(requests.adapters.BaseAdapter):
    """Sends what a session asks for through our client.

    base: the registry's own address; an address on another host is one that the registry named.
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
        """One request. Documents are read here, up to their limit; only the body of a stream is left unread.

        Raises what NETWORK_ERRORS names, HttpFailure, and IntegrityFailure for a document that is too large.
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
        """Nothing: the connections are the client's."""


def borrow(session: requests.Session, client: Client, base: str) -> None:
    """Let a session send everything through our client: no .netrc, no compression, few redirects.

    It keeps its own User-Agent: a proxy may treat clients differently by it.
    """
    session.auth = _unchanged  # without one, requests would look into .netrc
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

"""Guarded connections: limits on the networks they may reach, and on interim answers and trailers.

The address that counts is the one actually connected to, not what the name resolved to before. A proxy resolves names
itself, so only literal addresses can be checked there.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Collection, MutableMapping
from typing import Any

import requests.adapters
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from factory.io.http.certificates import Trust
from factory.io.http.hosts import EVERYWHERE, MAY_NAME, is_listed, network_of

_INTERIM = 16  # answers with status 100 before the final one
_TRAILERS = 100  # http.client's limit for headers
_LINE = 65536

Reached = MutableMapping[tuple[str, int], str]
"""The network of each host and port at the first connection."""


class LeadsInside(Exception):
    """An address is in a network that the server that named it may not send us to. Nothing was sent."""

    def __init__(self, host: str, address: str, network: str) -> None:
        super().__init__(f"{host} is {address}")
        self.host = host
        self.address = address
        self.network = network


class Gate:
    """Restricts connections to some networks.

    allowed: those networks, or None for addresses named by the user. These may be anywhere, but a name that was public
    once must not lead into a private network later. excepted: hosts that the settings always allow.
    """

    def __init__(self, reached: Reached, allowed: frozenset[str] | None, excepted: Collection[str]) -> None:
        self._reached = reached
        self._allowed = allowed
        self._excepted = excepted

    def dialled(self, host: str, port: int, dial: Callable[[], socket.socket]) -> socket.socket:
        """Connect. Raises what dial raises, and LeadsInside, before connecting if the name's addresses show it."""
        allowed = self._allowed
        if allowed is None:
            allowed = MAY_NAME[self._reached[host, port]] if (host, port) in self._reached else EVERYWHERE
        if is_listed(host, port, self._excepted):
            allowed = EVERYWHERE
        if self._allowed is not None and allowed != EVERYWHERE:
            for address in _addresses(host, port):
                _check(host, address, allowed)
        connection = dial()
        try:
            network = _check(host, connection.getpeername()[0], allowed)
        except BaseException:
            connection.close()
            raise
        self._reached.setdefault((host, port), network)
        return connection


class TrustingAdapter(requests.adapters.HTTPAdapter):
    """requests' adapter with our trusted certificates in place of requests' own. They are always verified."""

    def __init__(self, trust: Trust, gate: Gate | None = None) -> None:
        self._trust = trust
        self._direct, self._proxied = _pools(trust, gate), _pools(trust, None)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - requests' signature
        """Create the pools like requests, with our connection classes."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._direct

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Create a proxy's pools like requests. A SOCKS proxy keeps its own connection classes."""
        scheme = proxy.lower().partition(":")[0]
        if scheme.startswith("socks"):
            return super().proxy_manager_for(proxy, **options, ssl_context=self._trust())
        if scheme == "https":
            options["proxy_ssl_context"] = self._trust()
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._proxied
        return manager

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: object) -> None:  # noqa: ANN401, ARG002, FBT001
        """Leave the certificates to the TLS context: requests would add its own to it for each connection."""
        conn.cert_reqs = "CERT_REQUIRED"


class _Answer(http.client.HTTPResponse):
    """An answer with limits: http.client itself would read interim answers and trailers without end."""

    _interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._interim += 1
        if self._interim > _INTERIM:
            raise http.client.HTTPException(f"more than {_INTERIM} interim answers")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc] # typeshed leaves it out
        return found

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_TRAILERS):
            line = self.fp.readline(_LINE + 1)
            if len(line) > _LINE:
                raise http.client.LineTooLong("trailer line")
            if line in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException(f"more than {_TRAILERS} trailers")


def _pools(trust: Trust, gate: Gate | None) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's pool classes by scheme, with the gate and the trusted certificates for each new connection."""

    def opened(connection: HTTPConnection, dial: Callable[[], socket.socket]) -> socket.socket:
        host: str = connection._dns_host  # noqa: SLF001 - urllib3's hook for look-ups
        return gate.dialled(host.strip("[]").lower(), connection.port or 0, dial) if gate else dial()

    class Plain(HTTPConnection):
        response_class = _Answer

        def _new_conn(self) -> socket.socket:
            return opened(self, super()._new_conn)

    class Secure(HTTPSConnection):
        response_class = _Answer

        def connect(self) -> None:
            self.ssl_context = trust()
            super().connect()

        def _new_conn(self) -> socket.socket:
            return opened(self, super()._new_conn)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name; none if it cannot be resolved: connecting then raises the reason."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(place[0]) for *_, place in found]


def _check(host: str, address: str, allowed: frozenset[str]) -> str:
    network = network_of(address)
    if network not in allowed:
        raise LeadsInside(host, address, network)
    return network

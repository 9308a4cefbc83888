"""How patient and how trusting connections are. Standard library only: reading settings must stay cheap."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class HttpSettings:
    """What a Client needs to know; times in seconds.

    connect_timeout: for one connection. idle_timeout: without a byte, not for the whole answer. budget: from
    the first of a row of failures to giving up, waits included. attempts: in one such row. backoff: upper
    bound of the first wait; it doubles. ca_bundle: a file of certificates to trust instead of the usual ones.
    connections: how many may fetch parts of one file at the same time. limit_rate: bytes a second of all downloads
    together; None: no limit. Three lists of hosts (HOST or HOST:PORT) that the user trusts further than usual:
    plain_http_logins may get a login without TLS, token_services may get the login of any registry that names them,
    internal_hosts may be named by a registry although they are inside this network and it is not.
    """

    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    budget: float = 120.0
    attempts: int = 6
    backoff: float = 1.0
    ca_bundle: str | None = None
    connections: int = 4
    limit_rate: float | None = None
    user_agent: str = "singfactory"
    plain_http_logins: frozenset[str] = frozenset()
    token_services: frozenset[str] = frozenset()
    internal_hosts: frozenset[str] = frozenset()


def redacted(url: str) -> str:
    """A URL that may be shown or logged: scheme, host and path; never a login, a query or a fragment."""
    try:
        parts = urlsplit(url)
        host = host_of(url)
    except ValueError:
        return "an address that cannot be read"
    path = "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in parts.path)
    return f"{parts.scheme}://{host}{path}" if parts.scheme and host else path[:200]


def host_of(url: str) -> str:
    """Host and, where one is given, port; without a login. Empty when there is none."""
    try:
        host = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return "".join(letter for letter in host if letter.isascii() and letter.isprintable()).lower()


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, defaults filled in: what may share a credential (RFC 6454). Raises ValueError."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, 0)
    return scheme, (parts.hostname or "").lower(), parts.port or default

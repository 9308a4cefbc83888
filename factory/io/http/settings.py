"""Settings of the HTTP client. Standard library only, because reading settings must stay fast."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class HttpSettings:
    """Settings of a Client; times in seconds.

    connect_timeout: for one connection. idle_timeout: without receiving a byte, not for the whole answer. budget: for
    consecutive failures, from the first one to giving up, including waits. attempts: of consecutive failures. outage:
    how long a host that has sent or received content may be away, however many attempts that takes. backoff: upper
    bound of the first wait, which then doubles. ca_bundle: a file of certificates to trust instead of the
    defaults. connections: number of parallel connections for one file. limit_rate: total download rate in bytes per
    second; None: unlimited. Three lists of hosts (HOST or HOST:PORT) are trusted more than usual: plain_http_logins
    may receive a login without TLS, token_services may receive the login of any registry that names them, and
    internal_hosts may be named by a registry although they are on a private network and the registry is not.
    """

    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    budget: float = 120.0
    attempts: int = 6
    outage: float = 60.0
    backoff: float = 1.0
    ca_bundle: str | None = None
    connections: int = 4
    limit_rate: float | None = None
    user_agent: str = "singfactory"
    plain_http_logins: frozenset[str] = frozenset()
    token_services: frozenset[str] = frozenset()
    internal_hosts: frozenset[str] = frozenset()


def redacted(url: str) -> str:
    """Return a URL that is safe to show or log: scheme, host, and path, without login, query, and fragment."""
    try:
        parts = urlsplit(url)
        host = host_of(url)
    except ValueError:
        return "an address that cannot be read"
    path = "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in parts.path)
    return f"{parts.scheme}://{host}{path}" if parts.scheme and host else path[:200]


def host_of(url: str) -> str:
    """Return a URL's host, with the port if it has one, and without a login; '' if there is no host."""
    try:
        host = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return "".join(letter for letter in host if letter.isascii() and letter.isprintable()).lower()


def origin_of(url: str) -> tuple[str, str, int]:
    """Return a URL's origin: scheme, host, and port, with default ports filled in (RFC 6454). Raises ValueError."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, 0)
    return scheme, (parts.hostname or "").lower(), parts.port or default

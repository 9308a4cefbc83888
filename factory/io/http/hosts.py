"""Whose hosts these are: in which network an address lies, which hosts belong together. Standard library only.

Specifications: RFC 6890 (special-purpose addresses), RFC 3986 3.2 (authority).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL = "public", "private", "loopback", "link-local"
EVERYWHERE = frozenset({PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL})
# Where a server may send us: to its own network, and to those that more people reach. Who stands outside names nothing
# inside; only what runs on this machine may name this machine, and nobody the metadata services of clouds.
MAY_NAME = {
    PUBLIC: frozenset({PUBLIC}),
    PRIVATE: frozenset({PUBLIC, PRIVATE}),
    LOOPBACK: frozenset({PUBLIC, PRIVATE, LOOPBACK}),
    LINK_LOCAL: frozenset({PUBLIC, LINK_LOCAL}),
}
_NETLOC = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)
_NUMBERS = re.compile(r"[0-9a-fx.]+", re.ASCII | re.IGNORECASE)
_TRANSLATED = tuple(  # IPv4 in IPv6: NAT64 (RFC 6052, RFC 8215), SIIT (RFC 7915), and compatible ones (RFC 4291)
    map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
)
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # of old (RFC 3879), and still routed inside some sites
# The second label of country domains below which anybody registers (co.uk, edu.au), and the domains of hosts with many
# customers. The full list has ten thousand lines. What is missing here weakens a second line of defence: who gets a
# login is named by the registry that it is for.
# fmt: off
_SECOND = frozenset({
    "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "gv", "mil", "ne", "net", "nom", "or", "org", "sch",
})
_SHARED = frozenset({
    "amazonaws.com", "appspot.com", "azurecr.io", "azurewebsites.net", "cloudapp.net", "cloudfront.net",
    "duckdns.org", "dyndns.org", "eu.org", "fly.dev", "github.io", "gitlab.io", "googleusercontent.com",
    "herokuapp.com", "hf.space", "jfrog.io", "netlify.app", "ngrok-free.app", "ngrok.io", "onrender.com", "pages.dev",
    "pkg.dev", "r2.dev", "readthedocs.io", "run.app", "surge.sh", "trycloudflare.com", "vercel.app", "web.app",
    "windows.net", "workers.dev",
})
# fmt: on


def checked_origin(url: str) -> tuple[str, str, int]:
    r"""Scheme, host and port of an address that a server named. Raises ValueError when its host is not a plain one.

    Stricter than ``origin_of``: parsers disagree on who is the host of ``https://a.example\.b.example``.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or _NETLOC.fullmatch(parts.netloc) is None:
        raise ValueError("not a web address")
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}[scheme]


def network_of(address: str) -> str:
    """In which network a literal IP address lies. Raises ValueError when it is none."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        plain = found.is_loopback or found.is_unspecified
        if inner is None and not plain and any(found in one for one in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return network_of(str(inner))
    if found.is_loopback or found.is_unspecified:  # Linux takes 0.0.0.0 for this machine
        return LOOPBACK
    if found.is_link_local:
        return LINK_LOCAL
    return PUBLIC if found.is_global and not found.is_multicast and found not in _SITE_LOCAL else PRIVATE


def network_of_literal(host: str) -> str:
    """In which network a host lies as far as its name alone tells; '' for a name that has to be looked up."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return LOOPBACK
    try:
        return network_of(host)
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433: what the system's own look-up takes for addresses
        return network_of(socket.inet_ntoa(socket.inet_aton(host))) if _NUMBERS.fullmatch(host) else ""
    except (OSError, ValueError):
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, written plainly: ``localhost``, ``127.0.0.0/8`` or ``::1``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_site(one: str, other: str) -> bool:
    """Whether two hosts are run by the same people: equal, one below the other, or below the same registered domain."""
    one, other = one.rstrip("."), other.rstrip(".")
    if one == other:
        return True
    if network_of_literal(one) or network_of_literal(other) or "." not in one or "." not in other:
        return False
    return one.endswith(f".{other}") or other.endswith(f".{one}") or _registered(one) == _registered(other)


def is_listed(host: str, port: int, names: Collection[str]) -> bool:
    """Whether a setting names a host: as HOST, or as HOST:PORT."""
    shown = f"[{host}]" if ":" in host else host
    return shown in names or f"{shown}:{port}" in names


def _registered(host: str) -> str:
    """The part of a host name that somebody registered; the name itself where that is unsure."""
    labels = host.split(".")
    last = ".".join(labels[-2:])
    shared = last in _SHARED or (len(labels[-1]) == 2 and labels[-2] in _SECOND)  # noqa: PLR2004 - a country's
    return ".".join(labels[-3:]) if shared else last

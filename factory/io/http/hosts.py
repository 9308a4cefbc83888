"""Classification of hosts: the network of an address, and which hosts belong together. Standard library only.

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
# The networks that a server may send us to: its own, and more public ones. A public server cannot name private
# addresses; only a server on this machine can name this machine, and none can name cloud metadata services.
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
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # deprecated (RFC 3879), but still routed inside some sites
# Second labels of country domains that are open for registration (co.uk, edu.au), and domains of hosting providers with
# many customers. The full list has ten thousand lines. A missing entry only weakens a second line of defense: the token
# service that gets a login is already named by the registry that the login is for.
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
    r"""Return scheme, host, and port of an address named by a server. Raises ValueError for an unusual host.

    Stricter than ``origin_of``, because URL parsers disagree about the host of ``https://a.example\.b.example``.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or _NETLOC.fullmatch(parts.netloc) is None:
        raise ValueError("not a web address")
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}[scheme]


def network_of(address: str) -> str:
    """Return the network of a literal IP address. Raises ValueError if it is not one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        plain = found.is_loopback or found.is_unspecified
        if inner is None and not plain and any(found in one for one in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return network_of(str(inner))
    if found.is_loopback or found.is_unspecified:  # Linux connects 0.0.0.0 to this machine
        return LOOPBACK
    if found.is_link_local:
        return LINK_LOCAL
    return PUBLIC if found.is_global and not found.is_multicast and found not in _SITE_LOCAL else PRIVATE


def network_of_literal(host: str) -> str:
    """Return the network of a host whose name is an address; '' for a name that must be resolved."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return LOOPBACK
    try:
        return network_of(host)
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433: forms that the system's resolver accepts as addresses
        return network_of(socket.inet_ntoa(socket.inet_aton(host))) if _NUMBERS.fullmatch(host) else ""
    except (OSError, ValueError):
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: ``localhost``, ``127.0.0.0/8``, or ``::1``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_site(one: str, other: str) -> bool:
    """Return whether two hosts belong together: equal, one a subdomain of the other, or of one registered domain."""
    one, other = one.rstrip("."), other.rstrip(".")
    if one == other:
        return True
    if network_of_literal(one) or network_of_literal(other) or "." not in one or "." not in other:
        return False
    return one.endswith(f".{other}") or other.endswith(f".{one}") or _registered(one) == _registered(other)


def is_listed(host: str, port: int, names: Collection[str]) -> bool:
    """Return whether a setting lists a host, as HOST or as HOST:PORT."""
    shown = f"[{host}]" if ":" in host else host
    return shown in names or f"{shown}:{port}" in names


def _registered(host: str) -> str:
    """Return the registered domain of a host name, as far as the lists above can tell."""
    labels = host.split(".")
    last = ".".join(labels[-2:])
    shared = last in _SHARED or (len(labels[-1]) == 2 and labels[-2] in _SECOND)  # noqa: PLR2004 - a country code
    return ".".join(labels[-3:]) if shared else last

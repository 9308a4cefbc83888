"""The proxies of the environment: their addresses with logins, and the requests that bypass them.

Requests reads http_proxy, https_proxy, all_proxy and their uppercase spellings. It rejects passwords that are not
percent-encoded, and blames the requested URL. Its reading of no_proxy lacks forms that curl and Go programs such as
Apptainer accept: ``*.example.org``, networks in IPv6, addresses in brackets, and names separated by spaces.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote
from urllib.request import getproxies_environment

from factory.errors import UsageError

SOCKS = frozenset({"socks4", "socks4a", "socks5", "socks5h"})
_SCHEMES = frozenset({"http", "https"}) | SOCKS
_PORTS = {"http": 80, "https": 443}
_PLACE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, repr=False)
class Proxy:
    """A proxy. place: HOST:PORT, which may be shown. login: USER:PASSWORD, percent-encoded; '' for none."""

    scheme: str
    place: str
    login: str = ""

    @classmethod
    def parse(cls, address: str) -> Proxy:
        """Read an address as curl does: the scheme is optional, and the last @ ends the login, whatever it contains.

        Raises UsageError, which quotes nothing: it could be a part of the password.
        """
        scheme, separator, rest = address.strip().partition("://")
        scheme, rest = (scheme.lower(), rest) if separator else ("http", address.strip())
        login, _, place = rest.rpartition("@")
        place = place.rstrip("/").lower()
        if scheme not in _SCHEMES or _PLACE.fullmatch(place) is None:
            raise UsageError(
                "the address of a proxy in the environment is not valid",
                why="expected http://USER:PASSWORD@HOST:PORT, or HOST:PORT",
                fix="correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY",
            )
        parts = [quote(unquote(part), safe="") for part in login.split(":", 1)] if login else []
        return cls(scheme, place, ":".join(parts))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the latter with its default."""
        found = re.fullmatch(r"\[?([^\[\]]+?)\]?(?::([0-9]+))?", self.place)
        assert found is not None  # noqa: S101 - parse has checked it
        return found[1], int(found[2] or _PORTS.get(self.scheme, 1080))

    @property
    def url(self) -> str:
        """The address with the login."""
        return f"{self.scheme}://{self.login}@{self.place}" if self.login else f"{self.scheme}://{self.place}"


def bypassed(host: str, port: int) -> bool:
    """Return whether no_proxy lists a host: by name, by domain, by network, or by ``*`` for all."""
    entries = _split(getproxies_environment().get("no", ""))
    return any(_matches(entry, host.lower().rstrip("."), port) for entry in entries)


def plain_no_proxy(no_proxy: str) -> str:
    """Return no_proxy in the form that most programs read: commas, and ``.example.org`` for ``*.example.org``."""
    return ",".join(dict.fromkeys(entry if entry == "*" else entry.removeprefix("*") for entry in _split(no_proxy)))


def _split(no_proxy: str) -> list[str]:
    return [entry.lower() for entry in re.split(r"[\s,]+", no_proxy) if entry]


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, its_port = _with_port(entry)
    if its_port not in (None, port):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = name.removeprefix("*").removeprefix(".").rstrip(".")
        return host == domain or host.endswith(f".{domain}")
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _with_port(entry: str) -> tuple[str, int | None]:
    """Split an entry into its name, network or address, and its port."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([^:]+):([0-9]{1,5})", entry)
    if found is None:
        return entry, None
    name, port = found[1] or found[3], found[2] or found[4]
    return name, int(port) if port else None

"""The environment of programs that recipes can read: an allow-list.

A %post, or a test, reads the environment of the engine that runs it in /proc. So the engine gets the few variables
that it works by, and none that somebody may have put a token into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PROXIES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for spelling in (name, name.upper())
)
CERTIFICATES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")
# LD_LIBRARY_PATH: an engine that came as an environment module may find its libraries by it alone.
_PLAIN = frozenset({"PATH", "HOME", "LANG", "TERM", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_DIR", *CERTIFICATES})
_DRAWN = re.compile(r"(?=[0-9]*[A-Za-z])(?=[A-Za-z]*[0-9])[A-Za-z0-9]{12,}", re.ASCII)
_SAME_EVERYWHERE = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}


def allowed(env: Mapping[str, str]) -> dict[str, str]:
    """Of a user's environment, what an engine needs; a proxy that is addressed with a login is left out."""
    kept = {name: env[name] for name in _PLAIN if name in env}
    kept |= {name: env[name] for name in PROXIES if name in env and not holds_login(env[name])}
    return kept | _SAME_EVERYWHERE


def holds_login(address: str) -> bool:
    """Whether a URL, or a proxy without its scheme, names a user before the host, or carries a query: a token, say.

    A password with a slash in it belongs into no URL, and yet people write it there: then no number follows the colon.
    """
    if "?" in address:
        return True
    authority, _, rest = address.rpartition("://")[2].partition("/")
    port = authority.rpartition(":")[2] if ":" in authority else "0"
    return "@" in authority or ("@" in rest and not port.isdigit())


def holds_token(address: str) -> bool:
    """Whether a part of a URL's path looks drawn at random, as the tokens that some package indexes put there."""
    path = address.partition("://")[2].partition("/")[2]
    return any(_DRAWN.fullmatch(part) for part in re.split(r"[/._-]", path))

"""The allow-list of environment variables for an engine that runs recipes.

A %post or a test can read the engine's environment in /proc. So the engine gets only the variables that it needs, and
none that may hold a token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from factory.io import limits

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
    """Return the variables that an engine needs. A proxy whose address holds a login is left out."""
    kept = {name: env[name] for name in _PLAIN if name in env}
    kept |= {name: env[name] for name in PROXIES if name in env and not holds_login(env[name])}
    return kept | threads(env) | _SAME_EVERYWHERE


def threads(env: Mapping[str, str]) -> dict[str, str]:
    """Return GOMAXPROCS for an engine where fewer CPUs may be used than it would see, unless the user has set it.

    Only builds and tests get it, whose containers do not see it: `exec` passes the environment on to the program.
    """
    if "GOMAXPROCS" in env:
        return {"GOMAXPROCS": env["GOMAXPROCS"]}
    return {"GOMAXPROCS": str(limits.allowed_cpus())} if limits.is_limited() else {}


def mksquashfs_limits() -> tuple[str, ...]:
    """Return mksquashfs's option for the same reason. The image is the same with any number of threads."""
    return ("-processors", str(limits.allowed_cpus())) if limits.is_limited() else ()


def holds_login(address: str) -> bool:
    """Return whether a URL, or a proxy without a scheme, holds a user name or a query, which may be a token.

    A slash in a password must be escaped in a URL, but people write it plainly: then no number follows the colon.
    """
    if "?" in address:
        return True
    authority, _, rest = address.rpartition("://")[2].partition("/")
    port = authority.rpartition(":")[2] if ":" in authority else "0"
    return "@" in authority or ("@" in rest and not port.isdigit())


def holds_token(address: str) -> bool:
    """Return whether a part of a URL's path looks random, as the tokens do that some package indexes put there."""
    path = address.partition("://")[2].partition("/")[2]
    return any(_DRAWN.fullmatch(part) for part in re.split(r"[/._-]", path))

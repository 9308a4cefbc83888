"""Put the authorities that a site has added to its machines into one file for builds.

An image does not have them, so a %post behind the site's proxy or mirror would trust no server.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from factory.engine.certificates import content_of, readable
from factory.io.http.certificates import public_bundle

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_DER = b"\x30"  # how a certificate starts that is not in PEM format
# Where administrators add authorities to the system's store: Debian, RHEL, SUSE, Arch.
_ANCHORS = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/pki/trust/anchors",
    "/etc/ca-certificates/trust-source/anchors",
)
_SYSTEM = ("/etc/ssl/certs", "/usr/lib/ssl/certs", "/etc/pki/tls/certs")


def site_bundle(env: Mapping[str, str], ca: Path | None) -> bytes:
    """Return every certificate that this machine trusts, in PEM format, if the site has authorities of its own.

    These are in the setting ca, in SSL_CERT_DIR, or in the system's store. Returns b'' if there are none: then the
    image's own store and the files that environment variables name are enough.
    """
    folders = [Path(name) for name in env.get("SSL_CERT_DIR", "").split(":") if name not in ("", *_SYSTEM)]
    named = [ca] if ca is not None else []
    own = _certificates([*named, *_files_in(folders), *_files_in(map(Path, _ANCHORS))])
    if not own:
        return b""
    known = _certificates([public_bundle(), *readable(env).values()])
    return b"".join(block + b"\n" for block in dict.fromkeys([*own, *known]))


def _files_in(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _certificates(paths: Iterable[Path]) -> list[bytes]:
    found: list[bytes] = []
    for path in paths:
        content = content_of(path) or b""
        if content.startswith(_DER):
            content = ssl.DER_cert_to_PEM_cert(content).encode()
        found += _CERTIFICATE.findall(content)
    return found

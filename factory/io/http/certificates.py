"""Trusted certificates: the setting ``ca``, the variables that other clients read, and the system's own store.

Requests only knows the public authorities of certifi. A site's own authority is usually in the system's store, where
curl, git, and Apptainer find it. So both count, and SSL_CERT_FILE and SSL_CERT_DIR are honored as OpenSSL honors them.
The setting ``ca``, REQUESTS_CA_BUNDLE, and CURL_CA_BUNDLE replace all of that.

Links to such files are followed. Files are checked before use, because OpenSSL would block forever on a pipe.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
from urllib3.util.ssl_ import create_urllib3_context

from factory.errors import UsageError
from factory.io.files import readable_size
from factory.io.plain import NotPlainError, opened, read_plain

_LIMIT = 64 * 1024 * 1024  # bytes; all authorities that browsers trust take 250 kB
# Where distributions keep all trusted certificates in one file. Python may be linked with an OpenSSL (conda's, for
# example) that knows none of these. As in Go (crypto/x509/root_linux.go), the first that exists counts.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Gentoo, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # RHEL 8, Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and later
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine
)
_FOLDERS = ("/etc/ssl/certs", "/etc/pki/tls/certs")
_BY_HASH = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # how OpenSSL finds a certificate in a folder (c_rehash(1))


Trust = Callable[[], ssl.SSLContext]
"""Returns the TLS context with the trusted certificates. Raises UsageError if a named file cannot be used."""


def trust(ca_bundle: str | None) -> Trust:
    """Return a function that makes the TLS context for clients when it is first called. ca_bundle: the setting ca."""
    return functools.cache(lambda: _context(ca_bundle))


def _context(ca_bundle: str | None) -> ssl.SSLContext:
    made = create_urllib3_context()
    found = requests.Session().merge_environment_settings("", {}, None, None, None)["verify"]
    if ca_bundle is not None:
        _load(made, ca_bundle, "the setting ca")
    elif isinstance(found, str):
        _load(made, found, "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE")
    else:
        _load_defaults(made)
    return made


def require_usable(ca_bundle: str | None) -> None:
    """Raise UsageError if the setting ca names a file that does not exist or cannot be read."""
    if ca_bundle is not None:
        _check(ca_bundle, "the setting ca")


def public_bundle() -> Path:
    """Return a file with all certificates that this system trusts, or else the public ones that requests knows."""
    return _system_bundle() or Path(requests.utils.DEFAULT_CA_BUNDLE_PATH)


def _system_bundle() -> Path | None:
    return next((path for path in map(Path, _BUNDLES) if path.is_file()), None)


def _load_defaults(made: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()  # reads the two variables
    if paths.cafile and paths.cafile != paths.openssl_cafile:
        _load(made, paths.cafile, paths.openssl_cafile_env)
    else:
        made.load_verify_locations(requests.utils.DEFAULT_CA_BUNDLE_PATH)
        for folder in filter(os.path.isdir, _FOLDERS):
            made.load_verify_locations(capath=folder)
        if (bundle := _system_bundle()) is not None:
            _load_leniently(made, bundle)
    made.set_default_verify_paths()
    if paths.capath and paths.capath != paths.openssl_capath:
        for path in _unhashed(Path(paths.capath)):
            _load_leniently(made, path)


def _load(made: ssl.SSLContext, bundle: str, named_by: str) -> None:
    """Trust the certificates of a bundle that the user named. Raises UsageError."""
    _check(bundle, named_by)
    try:
        made.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
    except OSError as error:  # among them ssl.SSLError
        raise _unusable(bundle, _reason(error), named_by) from error


def _load_leniently(made: ssl.SSLContext, path: Path) -> None:
    """Trust the certificates of a file that nobody named; a damaged one must not stop every command."""
    with contextlib.suppress(OSError, NotPlainError, ValueError):
        made.load_verify_locations(cadata=read_plain(path, _LIMIT, follow=True).decode("ascii", "ignore"))


def _unhashed(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder in which OpenSSL finds nothing because it was never rehashed. Go reads them all."""
    with contextlib.suppress(OSError):
        entries = sorted(folder.iterdir())
        if not any(_BY_HASH.fullmatch(path.name) for path in entries):
            yield from entries


def _check(bundle: str, named_by: str) -> None:
    """Raise UsageError for a bundle that is missing or unreadable. named_by: the setting or variable, for the fix."""
    path, why = Path(bundle), ""
    try:
        if path.is_dir():
            return
        with opened(path, follow=True) as descriptor:
            size = os.fstat(descriptor).st_size
        why = f"it is too large ({readable_size(size)})" if size > _LIMIT else ""
    except FileNotFoundError:
        why = "it does not exist"
    except NotPlainError as error:
        why = f"it {error.how}"
    except OSError as error:
        why = error.strerror or "it cannot be opened"
    if why:
        raise _unusable(bundle, why, named_by)


def _unusable(bundle: str, why: str, named_by: str) -> UsageError:
    return UsageError(
        f"the file of trusted certificates {bundle} cannot be read",
        why=why,
        fix=f"correct {named_by}; it names a file in PEM format",
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it contains no certificate in PEM format, or a damaged one"
    return error.strerror or "it cannot be opened"

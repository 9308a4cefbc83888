"""Trusted certificates: the setting ``ca``, and the variables that other clients read.

Links to such files are followed. Files are checked before use, because OpenSSL would block forever on a pipe.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from factory.errors import UsageError
from factory.io.files import readable_size
from factory.io.plain import NotPlainError, opened

_LIMIT = 64 * 1024 * 1024  # bytes; all authorities that browsers trust take 250 kB


def trusted(ca_bundle: str | None) -> str | bool:
    """Return the file of the setting ca, for requests; True if it is not set. Raises UsageError if it is unusable."""
    if ca_bundle is None:
        return True
    if not Path(ca_bundle).exists():
        raise UsageError(
            f"the file of trusted certificates does not exist: {ca_bundle}",
            fix="correct the setting ca; it names a file in PEM format",
        )
    check(ca_bundle, "the setting ca")
    return ca_bundle


def check(bundle: str, named_by: str) -> None:
    """Raise UsageError if a bundle cannot be read. A missing file or a folder is left to OpenSSL.

    named_by: the setting or variable that names it, for the fix.
    """
    path, why = Path(bundle), ""
    try:
        if path.is_dir():
            return
        with opened(path, follow=True) as descriptor:
            size = os.fstat(descriptor).st_size
        why = f"it is too large ({readable_size(size)})" if size > _LIMIT else ""
    except FileNotFoundError:
        return
    except NotPlainError as error:
        why = f"it {error.how}"
    except OSError as error:
        why = error.strerror or "it cannot be opened"
    if why:
        raise UsageError(
            f"the file of trusted certificates {bundle} cannot be read",
            why=why,
            fix=f"correct {named_by}; it names a file in PEM format",
        )


def of_environment(found: object) -> str | bool:
    """Return the bundle that requests found in the environment, or else the one that SSL_CERT_FILE names.

    found: the value that requests would use: a path, or whether to verify. Every other client on the machine honors
    SSL_CERT_FILE. Raises UsageError, like ``check``.
    """
    if isinstance(found, str):
        check(found, "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE")
        return found
    paths = ssl.get_default_verify_paths()
    if paths.cafile and paths.cafile != paths.openssl_cafile:
        check(paths.cafile, "SSL_CERT_FILE")
        return paths.cafile
    return True

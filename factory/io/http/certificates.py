"""Files of certificates to trust: the setting ``ca``, and what the environment names as other clients read it.

People keep links to them, which are followed. But OpenSSL waits for whatever a name stands for, so a pipe in the place
of such a file would stop every command: it is looked at first.
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
    """What the setting ca names, for requests; True where it is not set. Raises UsageError when it cannot be used."""
    if ca_bundle is None:
        return True
    if not Path(ca_bundle).exists():
        raise UsageError(
            f"the file of trusted certificates is not there: {ca_bundle}",
            fix="correct the setting ca; it names a file in PEM format",
        )
    check(ca_bundle, "the setting ca")
    return ca_bundle


def check(bundle: str, named_by: str) -> None:
    """Raise UsageError for a bundle that nothing can be read from. Of a missing one, and of a folder, OpenSSL tells.

    named_by: what names it, for the fix.
    """
    path, why = Path(bundle), ""
    try:
        if path.is_dir():
            return
        with opened(path, follow=True) as descriptor:
            size = os.fstat(descriptor).st_size
        why = f"it has {readable_size(size)}" if size > _LIMIT else ""
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
    """The bundle that requests found in the environment, else what SSL_CERT_FILE names, as OpenSSL reads it.

    found: what requests would use; a path, or whether to verify. Every other client on the machine obeys SSL_CERT_FILE.
    Raises UsageError, as ``check`` does.
    """
    if isinstance(found, str):
        check(found, "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE")
        return found
    paths = ssl.get_default_verify_paths()
    if paths.cafile and paths.cafile != paths.openssl_cafile:
        check(paths.cafile, "SSL_CERT_FILE")
        return paths.cafile
    return True

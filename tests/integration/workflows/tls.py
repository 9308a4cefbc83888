"""A certificate for servers on loopback: act requires TLS for a GitHub server."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from tests.servers import tool


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, and the server's TLS context."""
    authority, key = self_signed(folder, "127.0.0.1", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    return authority, context


def self_signed(folder: Path, host: str, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key. name: the host as a subjectAltName."""
    wanted = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName={name}"]
    authority, key = folder / "ca.pem", folder / "key.pem"
    command = [tool("openssl"), "req", *wanted, *names, "-keyout", str(key), "-out", str(authority)]
    subprocess.run(command, check=True, capture_output=True)
    return authority, key

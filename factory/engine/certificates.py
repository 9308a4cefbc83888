"""Find the site's certificate files that builds may see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from factory.engine.environment import CERTIFICATES
from factory.io import plain

_LARGEST = 16 << 20  # bytes; the authorities that browsers trust take 300 kB
_KEY = b"PRIVATE KEY-----"  # ends the first line of every kind of private key (RFC 7468)


def readable(env: Mapping[str, str]) -> dict[str, Path]:
    """Return the certificate files that environment variables name, by variable, without files that hold a private key.

    Some users keep a client's key and certificate in one file, and a recipe can send away everything that a build sees.
    """
    named = ((name, Path(env.get(name, ""))) for name in CERTIFICATES)
    return {
        name: path for name, path in named if path.is_absolute() and path.is_file() and content_of(path) is not None
    }


def left_out(env: Mapping[str, str]) -> list[str]:
    """Return the variables whose file is hidden from builds."""
    kept = readable(env)
    return [name for name in CERTIFICATES if name not in kept and Path(env.get(name, "")).is_file()]


def content_of(path: Path) -> bytes | None:
    """Return the content of a certificate file, or None if it cannot be read or holds a private key."""
    try:
        content = plain.read_plain(path, _LARGEST, follow=True)
    except (OSError, plain.NotPlainError):
        return None
    return None if _KEY in content else content

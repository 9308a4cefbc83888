"""The site's own certificates: which files of them builds may see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from factory.engine.environment import CERTIFICATES
from factory.io import plain

_LARGEST = 16 << 20  # bytes; all authorities that browsers know take 300 kB
_KEY = b"PRIVATE KEY-----"  # ends the line that begins a key of any kind (RFC 7468)


def readable(env: Mapping[str, str]) -> dict[str, Path]:
    """The certificate files that variables name, by the variable's name: those that hold no private key.

    Some people keep a client's key behind its certificate, and what a build sees, a recipe can send away.
    """
    named = ((name, Path(env.get(name, ""))) for name in CERTIFICATES)
    return {name: path for name, path in named if path.is_absolute() and path.is_file() and not _holds_key(path)}


def left_out(env: Mapping[str, str]) -> list[str]:
    """The variables that name a file which builds do not see."""
    kept = readable(env)
    return [name for name in CERTIFICATES if name not in kept and Path(env.get(name, "")).is_file()]


def _holds_key(path: Path) -> bool:
    try:
        return _KEY in plain.read_plain(path, _LARGEST, follow=True)
    except (OSError, plain.NotPlainError):
        return True

"""Paths in settings: variables, ``~``, and relative paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from factory.errors import UsageError

VARIABLE = r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))"
_SHOWN = 120  # characters of an invalid value in a message


def expanded(text: str, path: Path, env: Mapping[str, str]) -> str:
    """Expand ``$NAME`` and ``~`` in a path from a file, and make it absolute from the file's folder."""
    filled = re.sub(VARIABLE, lambda match: env.get(match[1] or match[2]) or match[0], text, flags=re.ASCII)
    if "$" in filled:
        raise UsageError(
            f"{path} uses a variable that is not set", why=text[:_SHOWN], fix="set the variable, or write the full path"
        )
    return absolute(filled, path.parent, env, str(path))


def absolute(text: str, folder: Path, env: Mapping[str, str], origin: str) -> str:
    """Expand ``~`` in a path, or in ``oci:`` and a path, and make it absolute from folder."""
    prefix, rest = ("oci:", text.removeprefix("oci:")) if text.startswith("oci:") else ("", text)
    if rest == "~" or rest.startswith("~/"):
        if not env.get("HOME"):
            raise UsageError(
                f"{origin} uses a variable that is not set", why=text[:_SHOWN], fix="set HOME, or write the full path"
            )
        rest = env["HOME"] + rest[1:]
    return prefix + os.path.normpath(folder / rest)

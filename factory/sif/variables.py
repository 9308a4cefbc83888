"""Read the environment variables that an image sets, from its scripts, without running them.

Engines keep a Docker image's variables in ``/.singularity.d/env/10-docker2singularity.sh``, each as
``export NAME="${NAME:-"VALUE"}"``, and %environment in ``90-environment.sh`` (apptainer, pkg/image/packer). Scripts can
compute values, so this is a lower bound: a value with a command or another variable in it is taken as far as it is
literal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from factory.sif.tree import Tree

_SCRIPTS = re.compile(r"/\.singularity\.d/env/[^/]+\.sh")
_LIMIT = 256 << 10  # bytes of a script
_MOST_SCRIPTS = 50
_MOST_LINES = 5000
_LONGEST = 8192  # characters of a value
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]{0,199})=(.{1,8200})", re.ASCII)
_DEFAULT = re.compile(r'"?\$\{[A-Za-z0-9_]+:?-(.*)\}"?', re.ASCII)
_OWN = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)(?::?[-+][^}]*)?\}?", re.ASCII)


def variables(tree: Tree) -> Mapping[str, str]:
    """Return the variables that the image's scripts set, later scripts winning. Raises FilesUnknown."""
    found: dict[str, str] = {}
    scripts = [path for path in tree.entries if path.startswith("/.singularity.d/env/") and _SCRIPTS.fullmatch(path)]
    for path in sorted(scripts)[:_MOST_SCRIPTS]:
        entry = tree.entries[path]
        if entry.inode.kind != "file":
            continue
        for line in tree.head(entry, _LIMIT).decode(errors="replace").splitlines()[:_MOST_LINES]:
            if match := _LINE.fullmatch(line[: _LONGEST + 200]):
                found[match[1]] = _value(match[2], found)
    return found


def folders(value: str) -> tuple[str, ...]:
    """Return the absolute folders of a search path such as LD_LIBRARY_PATH, in order."""
    return tuple(part.rstrip("/") or "/" for part in value.split(":") if part.startswith("/"))


def _value(text: str, before: Mapping[str, str]) -> str:
    text = text.strip()
    if match := _DEFAULT.fullmatch(text):
        text = match[1]
    text = text.strip().strip("\"'")
    return _OWN.sub(lambda match: before.get(match[1], ""), text)[:_LONGEST]

"""`RUN --mount=type=…`: what a command sees while it runs, and what is not kept.

Specification: Dockerfile reference, "RUN --mount"; BuildKit's instructions/commands_runmount.go.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from difflib import get_close_matches

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.instructions import SyntaxProblem
from factory.recipes.dockerfile.model import Instruction

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SPELLING = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = ("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode")
_ALL_KEYS = (*_KEYS, "uid", "gid", "env", *_SPELLING)
_SWITCHES = ("readonly", "readwrite", "required")
_EXAMPLE = "write --mount=type=cache,target=/root/.cache"


@dataclass(frozen=True)
class Mount:
    """One mount. source: '' for the whole of its stage, image or context. stage: the value of ``from``."""

    kind: str = "bind"
    stage: str = ""
    source: str = ""
    target: str = ""
    id: str = ""
    writable: bool = False


def mounts_of(found: Instruction) -> tuple[Mount, ...]:
    """Return the mounts of RUN, variables not replaced. Raises SyntaxProblem."""
    return tuple(mount(text) for text in found.all_flags("mount"))


def mount(text: str) -> Mount:
    """Parse the value of ``--mount``. Raises SyntaxProblem."""
    values = dict(_setting(field) for field in _fields(text))
    kind = values.get("type", "bind").lower()
    if kind not in TYPES:
        near = get_close_matches(kind[:100], TYPES, n=1)
        hint = f"did you mean type={near[0]}?" if near else f"use one of {', '.join(TYPES)}"
        raise SyntaxProblem(f"--mount has no type {shown(kind)}", hint)
    writable = kind in ("cache", "tmpfs")
    for key in ("readonly", "readwrite"):
        if key in values:
            writable = (values[key].lower() in ("", "true", "1", "t")) == (key == "readwrite")
    stage, source, target, identifier = (values.get(key, "") for key in ("from", "source", "target", "id"))
    return Mount(kind, stage, source, target, identifier, writable)


def _setting(field: str) -> tuple[str, str]:
    written, equals, value = field.partition("=")
    key = _SPELLING.get(written.lower(), written.lower())
    if key not in _ALL_KEYS:
        near = get_close_matches(key[:100], _ALL_KEYS, n=1)
        raise SyntaxProblem(f"--mount has no key {shown(written)}", f"did you mean {near[0]}?" if near else _EXAMPLE)
    if not equals and key not in _SWITCHES:
        raise SyntaxProblem(f"--mount: {shown(field)} has no value", _EXAMPLE)
    return key, value


def _fields(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise SyntaxProblem(f"--mount={shown(text)} cannot be read: {error}", _EXAMPLE) from error
    return rows[0] if rows else []

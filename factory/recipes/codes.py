"""The readiness checks by code: what each finds, what goes wrong on a cluster, and what to do.

``factory.check.readiness`` finds them in an image; `[checks] ignore` of recipe.toml names them; docs/checks.md explains
them, and a test compares it with this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True)
class Code:
    """A kind of finding. An image with an error is not published; see docs/checks.md.

    effect: what goes wrong on a cluster. remedy: what to do in the recipe.
    """

    name: str
    severity: Severity
    effect: str
    remedy: str


_ALL = (
    Code(
        "root-only-file",
        "warning",
        "users are not root in the image, so they cannot read, run or enter it",
        "at the end of %post: chmod -R a+rX on that folder",
    ),
    Code(
        "setuid",
        "warning",
        "engines mount images without setuid rights and capabilities, so the program runs with the user's own rights",
        "do without it, or remove it: chmod u-s,g-s, or apt-get purge",
    ),
    Code(
        "secret",
        "error",
        "everyone who can pull the image can read it, also when a later %post line deletes it from another layer",
        "remove it and revoke it; pass secrets when the image runs, never while it is built",
    ),
    Code(
        "sudo",
        "warning",
        "it never works in an image on a cluster: users have no way to become root there",
        "write scripts that need no root; remove it at the end of %post: apt-get purge -y sudo",
    ),
    Code(
        "unused-ignore",
        "warning",
        "nothing; the reason in recipe.toml is about a finding that the image no longer has",
        "remove the line from [checks] ignore",
    ),
    Code(
        "unreadable-files",
        "warning",
        "nothing is known: no readiness check could read this image",
        "build it with an engine that compresses with gzip or xz, the default of Apptainer",
    ),
)
CODES: Mapping[str, Code] = {code.name: code for code in _ALL}

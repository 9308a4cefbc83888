"""What an image needs of a machine's GPU driver, as it is recorded with the image and in its release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}", re.ASCII)
_ARCHITECTURE = r"(sm|compute)_[0-9]{2,3}[a-z]?|gfx[0-9a-f]{3,5}"
_MOST_ARCHITECTURES = 40


@dataclass(frozen=True)
class Needs:
    """What an image needs of the GPU driver. Every text is '' if it is unknown or the image has nothing of the kind.

    cuda, rocm: the versions that its programs are built with, such as ``12.1``, or ``12`` if the rest is unknown.
    driver: the oldest NVIDIA driver that runs them, such as ``525.60.13``. architectures: the GPUs that its largest
    library has code for, such as ``sm_90``.
    """

    cuda: str = ""
    driver: str = ""
    rocm: str = ""
    architectures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without what is unknown; empty if nothing is known."""
        known = {"cuda": self.cuda, "driver": self.driver, "rocm": self.rocm}
        found: dict[str, Any] = {name: text for name, text in known.items() if text}
        return found | ({"architectures": list(self.architectures)} if self.architectures else {})

    @classmethod
    def from_json(cls, value: object) -> Needs:
        """Parse the JSON form. Anything that singfactory would not write counts as unknown: no check depends on it."""
        found: Mapping[str, Any] = value if isinstance(value, dict) else {}
        listed = found.get("architectures")
        named = listed if isinstance(listed, list) else []
        return cls(
            cuda=_version(found.get("cuda")),
            driver=_version(found.get("driver")),
            rocm=_version(found.get("rocm")),
            architectures=tuple(
                one for one in named[:_MOST_ARCHITECTURES] if isinstance(one, str) and _is_architecture(one)
            ),
        )

    def in_words(self) -> str:
        """Return the needs as a clause, such as ``NVIDIA driver 525.60.13 or later (CUDA 12.1)``; '' if unknown."""
        return f"NVIDIA driver {self.driver} or later (CUDA {self.cuda})" if self.driver else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, for comparing; () if it is not one."""
    return tuple(int(part) for part in version.split(".")) if VERSION.fullmatch(version) else ()


def is_older(version: str, floor: str) -> bool:
    """Return whether a version is older than another one. False if either is unknown."""
    have, need = numbers(version), numbers(floor)
    return bool(have and need) and have < need


def _version(value: object) -> str:
    return value if isinstance(value, str) and VERSION.fullmatch(value) else ""


def _is_architecture(text: str) -> bool:
    return re.fullmatch(_ARCHITECTURE, text, re.ASCII) is not None

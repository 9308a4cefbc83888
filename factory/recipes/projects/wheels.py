"""Which wheels a platform takes, by their file names.

Specification: https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
"""

from __future__ import annotations

import re
from functools import lru_cache

from factory.recipes.projects.model import MACHINES, File, Package, Target

GLIBC = 36  # 2.36, of Debian 12: the oldest base that `new --project` chooses
_OLD = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # minor versions of glibc
_MANYLINUX = re.compile(r"(?:(manylinux(?:1|2010|2014))|manylinux_2_([0-9]{1,4}))_(.+)", re.ASCII)
_INTERPRETER = re.compile(r"(cp|py)([0-9])([0-9]{0,4})", re.ASCII)
_PARTS = 5  # name, version, and the three tags; six with a build tag


def wheels_for(package: Package, target: Target) -> tuple[File, ...]:
    """Return the wheels of a package that the target takes."""
    return tuple(wheel for wheel in package.wheels if fits(wheel.name, target))


@lru_cache(maxsize=65536)
def fits(name: str, target: Target) -> bool:
    """Return whether a target takes a wheel, by the wheel's file name."""
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or len(parts) not in (_PARTS, _PARTS + 1):
        return False
    interpreters, abis, platforms = (part.split(".") for part in parts[-3:])
    return any(_platform_fits(tag, target) for tag in platforms) and any(
        _python_fits(interpreter, abi, target) for interpreter in interpreters for abi in abis
    )


def _python_fits(interpreter: str, abi: str, target: Target) -> bool:
    match = _INTERPRETER.fullmatch(interpreter)
    if match is None:
        return False
    version = (int(match[2]), int(match[3] or 0))
    if version[0] != target.python[0] or version > target.python:
        return False
    if match[1] == "py":
        return abi == "none"
    exact = version == target.python
    return abi == "abi3" or (exact and abi in ("none", f"cp{target.python[0]}{target.python[1]}"))


def _platform_fits(tag: str, target: Target) -> bool:
    machine = MACHINES[target.arch]
    if tag in ("any", f"linux_{machine}"):
        return True
    match = _MANYLINUX.fullmatch(tag)
    return match is not None and match[3] == machine and (_OLD[match[1]] if match[1] else int(match[2])) <= GLIBC

"""The NVIDIA driver of this machine, and whether an image can use it. No program is started."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from factory.errors import MachineFailure
from factory.sif.needs import Needs, is_older, numbers

_LIBRARIES = tuple(
    map(Path, ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/nvidia", "/usr/lib"))
)
_DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
_GLIBC = re.compile(rb"\0GLIBC_(2\.[0-9]{1,3})(?:\.[0-9])?(?=\0)")
_SYMBOLS = 16 << 20  # bytes; the names of symbols and their versions are at the start of a library
_LIMIT = 4096  # bytes of the driver's file
# "NVIDIA UNIX x86_64 Kernel Module  525.60.13  Wed …", "NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release"
_VERSION = re.compile(r"Kernel Module\s+(?:for\s+\S+\s+)?([0-9]{3,4}(?:\.[0-9]{1,4}){1,3})\s", re.ASCII)


def nvidia_driver(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> str:
    """Return the version of the loaded NVIDIA driver, such as ``525.60.13``; '' if there is none or it is unknown."""
    match = _VERSION.search(_text(proc / "driver/nvidia/version"))
    found = match[1] if match else _text(sys / "module/nvidia/version").strip()
    return found if re.fullmatch(r"[0-9]{3,4}(\.[0-9]{1,4}){1,3}", found, re.ASCII) else ""


def driver_glibc(folders: Sequence[Path] = _LIBRARIES) -> str:
    """Return the version of the GNU C library that this machine's NVIDIA driver libraries need; '' if unknown."""
    found: set[str] = set()
    for name in _DRIVER_LIBRARIES:
        path = next((one for one in (folder / name for folder in folders) if one.is_file()), None)
        if path is not None:
            with path.open("rb") as file:
                found.update(match.decode() for match in _GLIBC.findall(file.read(_SYMBOLS)))
    return max(found, key=numbers, default="")


def too_old(needs: Needs, driver: str) -> bool:
    """Return whether a driver is older than an image needs. False if either is unknown."""
    return is_older(driver, needs.driver)


def require_driver(name: str, needs: Needs, driver: str, otherwise: str) -> None:
    """Raise MachineFailure if the driver is older than the image needs. otherwise: what the user can do instead."""
    if too_old(needs, driver):
        raise MachineFailure(
            f"{name} needs NVIDIA driver {needs.driver} or later; this machine has {driver}",
            why=f"its programs are built with CUDA {needs.cuda}, which that driver cannot run",
            fix=f"use a node with a newer driver, or {otherwise}",
        )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("ascii", "replace")
    except OSError:
        return ""

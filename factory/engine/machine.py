"""What of this machine decides how an image is started: architecture, GPU, rights. No program is started to find out.

Apart from ``host``, which probes what builds need: `exec` must start quickly.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

IDENTITY = "identity"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Rights(NamedTuple):
    """What this process may do. fuse: whether it can open /dev/fuse."""

    user_id: int
    full_capabilities: bool
    fuse: bool

    @property
    def is_root(self) -> bool:
        """Whether the user id is 0."""
        return self.user_id == 0

    @property
    def mounts_images(self) -> bool:
        """Whether a SIF can be mounted here. If not, the engine unpacks it for each run."""
        return self.fuse or (self.is_root and self.full_capabilities)

    @property
    def mapping(self) -> str:
        """The user namespace that gives a root all capabilities, or '' if none is missing. It may be impossible."""
        return IDENTITY if self.is_root and not self.full_capabilities else ""


def rights() -> Rights:
    """Return what this process may do."""
    return Rights(os.geteuid(), _has_all_capabilities(), _opens(Path("/dev/fuse")))


def architecture() -> str:
    """Return this machine's architecture by its OCI name (GOARCH)."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def gpu_present() -> str:
    """Return 'nvidia' or 'rocm' if there is a driver with at least one device, else ''."""
    if Path("/dev/nvidiactl").exists() and any(Path("/dev").glob("nvidia[0-9]*")):
        return "nvidia"
    return "rocm" if Path("/dev/kfd").exists() and any(Path("/dev/dri").glob("renderD*")) else ""


def _has_all_capabilities() -> bool:
    """Return whether the effective set holds every capability of this kernel."""
    try:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return True  # cannot be known; the engine reports a missing one
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    wanted: int = (1 << (last + 1)) - 1
    return int(effective, 16) & wanted == wanted


def _opens(device: Path) -> bool:
    """Return whether a device can be opened read-write: a control group may forbid what its mode allows."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True

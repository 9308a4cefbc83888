"""Probe this machine: what it offers for building and running images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError
from factory.io import process
from factory.io.launch import subordinate_range

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
IDENTITY = "identity"
_LIMITS = (
    ("user/max_user_namespaces", "0", "user namespaces are off"),
    ("kernel/unprivileged_userns_clone", "0", "user namespaces are off for ordinary users"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor limits user namespaces to programs with a profile"),
)
_TOOLS = ("newuidmap", "fakeroot", "mksquashfs", "squashfuse_ll", "squashfuse", "debootstrap")


@dataclass(frozen=True)
class Host:
    """Facts about this machine.

    tools: path of each helper program, '' if missing. gpu: '', 'nvidia' or 'rocm'. control_groups: mount points of
    cgroup file systems. mapping: the user namespace to start the engine in, or ''. Root needs one if it lacks a
    capability.
    """

    arch: str
    user_id: int
    full_capabilities: bool
    subordinate_ids: int
    fuse: bool
    gpu: str
    tools: Mapping[str, str]
    control_groups: tuple[Path, ...] = ()
    mapping: str = ""

    @property
    def is_root(self) -> bool:
        """Whether the user id is 0."""
        return self.user_id == 0

    @property
    def mounts_images(self) -> bool:
        """Whether a SIF can be mounted here. If not, the engine unpacks it for each run."""
        return self.fuse or (self.is_root and self.full_capabilities)

    @property
    def build_mode(self) -> str:
        """How the engine builds images here, in words. Whether it can build at all, only a trial can say."""
        if self.is_root:
            if self.mapping:
                return "as root in an identity-mapped user namespace (this root lacks a capability)"
            return "as root" if self.full_capabilities else "as root, which lacks a capability here"
        if self.subordinate_ids and self.tools["newuidmap"]:
            return "as an ordinary user, with the id range of /etc/subuid"
        helper = ", with the fakeroot command" if self.tools["fakeroot"] else ""
        return f"as an ordinary user mapped to root{helper} (no /etc/subuid range: some packages will not install)"


def probe(env: Mapping[str, str]) -> Host:
    """Probe this machine. A program is started only for a root that lacks a capability. env: its environment."""
    search = process.absolute_searches(env).get("PATH", os.defpath)
    tools = {name: shutil.which(name, path=f"{search}:/usr/sbin:/sbin") or "" for name in _TOOLS}
    full = _has_all_capabilities()
    return Host(
        arch=architecture(),
        user_id=os.geteuid(),
        full_capabilities=full,
        subordinate_ids=subordinate_range(Path("/etc/subuid"), os.geteuid())[1],
        fuse=_opens(Path("/dev/fuse")),
        gpu=gpu_present(),
        tools=tools,
        control_groups=_control_groups(),
        mapping=IDENTITY if os.geteuid() == 0 and not full and _can_map_ids(env) else "",
    )


def architecture() -> str:
    """Return this machine's architecture by its OCI name (GOARCH)."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def gpu_present() -> str:
    """Return 'nvidia' or 'rocm' if there is a driver with at least one device, else ''."""
    if Path("/dev/nvidiactl").exists() and any(Path("/dev").glob("nvidia[0-9]*")):
        return "nvidia"
    return "rocm" if Path("/dev/kfd").exists() and any(Path("/dev/dri").glob("renderD*")) else ""


def namespace_limit(settings: Path = Path("/proc/sys")) -> str:
    """Return which setting of the kernel limits user namespaces, in words, or ''. It need not affect the engine."""
    for name, value, meaning in _LIMITS:
        try:
            limited = (settings / name).read_text(encoding="ascii").strip() == value
        except (OSError, ValueError):
            continue
        if limited:
            return f"{meaning} ({name.replace('/', '.')}={value})"
    return ""


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


def _control_groups() -> tuple[Path, ...]:
    """Read the mount points from /proc/self/mounts (proc(5)): one for version 2, one per controller for version 1."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    mounts = (line.split(" ") for line in lines)
    return tuple(Path(place) for _, place, kind, *_ in mounts if kind in ("cgroup", "cgroup2") and "\\" not in place)


def _can_map_ids(env: Mapping[str, str]) -> bool:
    """Return whether root can run a program in an identity-mapped user namespace, by running one."""
    try:
        return process.output_of(["true"], env=env, mapped=IDENTITY)[0] == 0
    except FactoryError:
        return False

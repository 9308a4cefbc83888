"""Probe this machine: what it offers for building and running images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.errors import BuildFailed, FactoryError
from factory.io import process
from factory.io.launch import subordinate_range

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
IDENTITY = "identity"
_TOOLS = ("newuidmap", "fakeroot", "mksquashfs", "squashfuse_ll", "squashfuse", "debootstrap")


@dataclass(frozen=True)
class Host:
    """Facts about this machine.

    tools: path of each helper program, '' if missing. gpu: '', 'nvidia' or 'rocm'. control_groups: mount points of
    cgroup file systems.
    """

    arch: str
    user_id: int
    full_capabilities: bool
    user_namespaces: bool
    subordinate_ids: int
    fuse: bool
    gpu: str
    tools: Mapping[str, str]
    control_groups: tuple[Path, ...] = ()

    @property
    def is_root(self) -> bool:
        """Whether the user id is 0."""
        return self.user_id == 0

    @property
    def mapping(self) -> str:
        """The user namespace to start the engine in, or ''. Root needs one if it lacks a capability."""
        return IDENTITY if self.is_root and not self.full_capabilities and self.user_namespaces else ""

    @property
    def mounts_images(self) -> bool:
        """Whether a SIF can be mounted here. If not, the engine unpacks it for each run."""
        return self.fuse or (self.is_root and self.full_capabilities)

    def how_it_builds(self, *, setuid_engine: bool) -> str:
        """Describe how images are built here. Raises BuildFailed if they cannot be, with the reason."""
        if self.is_root:
            if self.full_capabilities:
                return "as root"
            if self.user_namespaces:
                return "as root in an identity-mapped user namespace (this root lacks a capability)"
            raise self._cannot("root lacks a capability here, and user namespaces are off")
        if self.subordinate_ids and self.tools["newuidmap"] and (self.user_namespaces or setuid_engine):
            return "as an ordinary user, with the id range of /etc/subuid"
        if not self.user_namespaces:
            raise self._cannot("user namespaces are off for ordinary users")
        helper = ", with the fakeroot command" if self.tools["fakeroot"] else ""
        return f"as an ordinary user mapped to root{helper} (no /etc/subuid range: some packages will not install)"

    def _cannot(self, why: str) -> BuildFailed:
        return BuildFailed(
            "this machine cannot build images",
            why=why,
            fix="build in a pull request or on another machine, or ask an administrator to allow user namespaces "
            "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
        )


def probe(env: Mapping[str, str]) -> Host:
    """Probe this machine, which takes about 20 ms. env: the environment of the programs that are run."""
    search = process.absolute_searches(env).get("PATH", os.defpath)
    tools = {name: shutil.which(name, path=f"{search}:/usr/sbin:/sbin") or "" for name in _TOOLS}
    full = _has_all_capabilities()
    return Host(
        arch=architecture(),
        user_id=os.geteuid(),
        full_capabilities=full,
        user_namespaces=_namespaces_work(env),
        subordinate_ids=subordinate_range(Path("/etc/subuid"), os.geteuid())[1],
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        gpu=gpu_present(),
        tools=tools,
        control_groups=_control_groups(),
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


def _control_groups() -> tuple[Path, ...]:
    """Read the mount points from /proc/self/mounts (proc(5)): one for version 2, one per controller for version 1."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    mounts = (line.split(" ") for line in lines)
    return tuple(Path(place) for _, place, kind, *_ in mounts if kind in ("cgroup", "cgroup2") and "\\" not in place)


def _namespaces_work(env: Mapping[str, str]) -> bool:
    """Create a user namespace to find out: sysctls, AppArmor and seccomp can each forbid it."""
    try:
        if os.geteuid() == 0:
            return process.output_of(["true"], env=env, mapped=IDENTITY)[0] == 0
        return process.output_of(["unshare", "--user", "--map-root-user", "true"], env=env)[0] == 0
    except FactoryError:
        return False

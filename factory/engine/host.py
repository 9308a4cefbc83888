"""Probe this machine: what it offers for building and running images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.engine.machine import IDENTITY, Rights, architecture, gpu_present, rights
from factory.errors import FactoryError
from factory.io.become import absolute_searches, program_on
from factory.io.launch import subordinate_range

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
        return Rights(self.user_id, self.full_capabilities, self.fuse).mounts_images

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
    search = absolute_searches(env).get("PATH", os.defpath)
    tools = {name: program_on(f"{search}:/usr/sbin:/sbin", name) for name in _TOOLS}
    mine = rights()
    return Host(
        arch=architecture(),
        user_id=mine.user_id,
        full_capabilities=mine.full_capabilities,
        subordinate_ids=subordinate_range(Path("/etc/subuid"), os.geteuid())[1],
        fuse=mine.fuse,
        gpu=gpu_present(),
        tools=tools,
        control_groups=_control_groups(),
        mapping=mine.mapping if mine.mapping and _can_map_ids(env) else "",
    )


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
    from factory.io import process  # noqa: PLC0415 - `exec` imports this module, and must start quickly

    try:
        return process.output_of(["true"], env=env, mapped=IDENTITY)[0] == 0
    except FactoryError:
        return False

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from factory.engine.host import Host, namespace_limit, probe

TOOLS = {"newuidmap": "/usr/bin/newuidmap", "fakeroot": "/usr/bin/fakeroot"}
USER = Host(
    arch="amd64",
    user_id=1000,
    full_capabilities=False,
    subordinate_ids=65536,
    fuse=True,
    gpu="",
    tools=TOOLS,
)
ROOT = replace(USER, user_id=0, full_capabilities=True)


def without(*names: str) -> Mapping[str, str]:
    return {name: "" if name in names else path for name, path in TOOLS.items()}


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (ROOT, "as root"),
        (
            replace(ROOT, full_capabilities=False, mapping="identity"),
            "as root in an identity-mapped user namespace (this root lacks a capability)",
        ),
        (replace(ROOT, full_capabilities=False), "as root, which lacks a capability here"),
        (USER, "as an ordinary user, with the id range of /etc/subuid"),
        (
            replace(USER, subordinate_ids=0),
            (
                "as an ordinary user mapped to root, with the fakeroot command"
                " (no /etc/subuid range: some packages will not install)"
            ),
        ),
        (
            replace(USER, tools=without("newuidmap", "fakeroot")),
            "as an ordinary user mapped to root (no /etc/subuid range: some packages will not install)",
        ),
    ],
)
def test_the_way_this_machine_builds_is_described(host: Host, words: str) -> None:
    assert host.build_mode == words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ""),
        ({"user/max_user_namespaces": "15000", "kernel/apparmor_restrict_unprivileged_userns": "0"}, ""),
        ({"user/max_user_namespaces": "0"}, "user namespaces are off (user.max_user_namespaces=0)"),
        (
            {"kernel/unprivileged_userns_clone": "0"},
            "user namespaces are off for ordinary users (kernel.unprivileged_userns_clone=0)",
        ),
        (
            {"user/max_user_namespaces": "15000", "kernel/apparmor_restrict_unprivileged_userns": "1"},
            (
                "AppArmor limits user namespaces to programs with a profile "
                "(kernel.apparmor_restrict_unprivileged_userns=1)"
            ),
        ),
    ],
)
def test_a_limit_on_user_namespaces_is_named(tmp_path: Path, settings: Mapping[str, str], words: str) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert namespace_limit(tmp_path) == words


def test_images_are_mounted_through_fuse_or_by_a_full_root() -> None:
    assert USER.mounts_images
    assert not replace(USER, fuse=False).mounts_images
    assert replace(ROOT, fuse=False).mounts_images
    assert not replace(ROOT, fuse=False, full_capabilities=False).mounts_images


def test_this_machine_is_probed() -> None:
    found = probe({"PATH": os.environ["PATH"]})
    assert found.user_id == os.geteuid()
    assert found.arch
    assert set(found.tools) >= {"newuidmap", "fakeroot", "mksquashfs", "squashfuse", "debootstrap"}
    assert found.mapping in {"", "identity"}
    assert all(path == "" or os.access(path, os.X_OK) for path in found.tools.values())

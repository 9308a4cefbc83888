from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import pytest

from factory.engine.host import Host, probe
from factory.errors import BuildFailed

TOOLS = {"newuidmap": "/usr/bin/newuidmap", "fakeroot": "/usr/bin/fakeroot"}
USER = Host(
    arch="amd64",
    user_id=1000,
    full_capabilities=False,
    user_namespaces=True,
    subordinate_ids=65536,
    fuse=True,
    gpu="",
    tools=TOOLS,
)
ROOT = replace(USER, user_id=0, full_capabilities=True)


def without(*names: str) -> Mapping[str, str]:
    return {name: "" if name in names else path for name, path in TOOLS.items()}


@pytest.mark.parametrize(
    ("host", "setuid", "words"),
    [
        (ROOT, False, "as root"),
        (
            replace(ROOT, full_capabilities=False),
            False,
            "as root in an identity-mapped user namespace (this root lacks a capability)",
        ),
        (USER, False, "as an ordinary user, with the id range of /etc/subuid"),
        (replace(USER, user_namespaces=False), True, "as an ordinary user, with the id range of /etc/subuid"),
        (
            replace(USER, subordinate_ids=0),
            False,
            (
                "as an ordinary user mapped to root, with the fakeroot command"
                " (no /etc/subuid range: some packages will not install)"
            ),
        ),
        (
            replace(USER, tools=without("newuidmap", "fakeroot")),
            False,
            "as an ordinary user mapped to root (no /etc/subuid range: some packages will not install)",
        ),
    ],
)
def test_the_way_this_machine_builds_is_described(host: Host, setuid: bool, words: str) -> None:  # noqa: FBT001
    assert host.how_it_builds(setuid_engine=setuid) == words


@pytest.mark.parametrize(
    ("host", "why"),
    [
        (
            replace(ROOT, full_capabilities=False, user_namespaces=False),
            "root lacks a capability here, and user namespaces are off",
        ),
        (replace(USER, user_namespaces=False), "user namespaces are off for ordinary users"),
        (replace(USER, user_namespaces=False, subordinate_ids=0), "user namespaces are off for ordinary users"),
    ],
)
def test_a_machine_that_cannot_build_says_why_and_what_to_do(host: Host, why: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        host.how_it_builds(setuid_engine=False)
    assert (caught.value.what, caught.value.why) == ("this machine cannot build images", why)
    assert "pull request" in caught.value.fix


def test_only_a_root_that_lacks_a_capability_is_mapped() -> None:
    assert [host.mapping for host in (USER, ROOT)] == ["", ""]
    assert replace(ROOT, full_capabilities=False).mapping == "identity"
    assert replace(ROOT, full_capabilities=False, user_namespaces=False).mapping == ""


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
    assert all(path == "" or os.access(path, os.X_OK) for path in found.tools.values())

"""A registry with two images for all tests of this folder, and users who pull them through a faulty proxy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from factory.oci.names import RegistryAddress
from factory.registry.distribution import DistributionRegistry
from tests.integration.pull.cluster import Image, User, content_of, publish_image
from tests.servers import Faulty, Server, docker_registry, faulty_registry

SMALL, LARGE = 3_000_000, 24_000_000  # bytes: one request, and enough for several connections
DISK = 100  # MB: an image and the margin that a pull leaves free

Start = Callable[..., Faulty]


@dataclass(frozen=True)
class Upstream:
    """A registry and its images."""

    server: Server
    small: Image
    large: Image


def registry_at(host: str, namespace: str) -> DistributionRegistry:
    return DistributionRegistry(RegistryAddress(host, namespace, plain_http=True))


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A registry with `tool`, which is small, and `large`. A test that publishes uses another namespace."""
    folder = tmp_path_factory.mktemp("upstream")
    with docker_registry(folder) as server:
        registry = DistributionRegistry(server.address)
        small = publish_image(folder, registry, content_of("small", SMALL))
        large = publish_image(folder, registry, content_of("large", LARGE), name="large")
        yield Upstream(server, small, large)


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the proxy with the given rules."""
    with ExitStack() as stack:

        def begin(*rules: Mapping[str, Any]) -> Faulty:
            return stack.enter_context(faulty_registry(tmp_path / "proxy", upstream.server.host, rules))

        yield begin


@pytest.fixture
def new_user(upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., User]]:
    """Return a function that makes users, each with a store. The stores must be sound when the test ends."""
    users: list[User] = []

    def make(faulty: Faulty | None = None, **changed: Any) -> User:
        number = len(users)
        address = faulty.address if faulty else upstream.server.address
        usual = {"home": tmp_path / f"home{number}", "store": tmp_path / f"store{number}", "registry": str(address)}
        users.append(User(**{**usual, **changed}))
        return users[-1]

    yield make
    for user in users:
        user.verify()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MB. Only root can mount one that other processes see."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)

"""Real parts for attackers: an engine, registries, the factory of a victim, and a second account."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.network import Network
from tests.attacks.network import namespace as network_namespace
from tests.integration.conftest import engine, namespace, new_project, project, registry_process, small_disk
from tests.integration.pull.conftest import new_user, start, upstream

__all__ = [
    "engine",
    "namespace",
    "needs_root",
    "new_project",
    "new_user",
    "project",
    "registry_process",
    "small_disk",
    "start",
    "upstream",
]

STRANGER = 61002  # a user id that nobody has
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")


@pytest.fixture
def nearby(tmp_path: Path) -> Network:
    """Servers on loopback addresses of this machine: each counts as another host."""
    return Network([], tmp_path)


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Network]:
    """A namespace with an outside, an inside and loopback addresses."""
    with network_namespace() as enter:
        yield Network(enter, tmp_path)

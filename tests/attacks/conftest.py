"""Real parts for attackers: an engine, registries, the factory of a victim, and a second account."""

from __future__ import annotations

import os

import pytest

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

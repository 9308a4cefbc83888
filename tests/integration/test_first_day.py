"""docs/first-day.md, typed on a real SLURM."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, Project
from tests.integration.documents import FIRST_DAY, Reader, blocks
from tests.integration.runners.slurm_cluster import missing, slurm_cluster
from tests.servers import Server

PYTHON = (
    DEFINITION
    + r"""    printf '#!/bin/sh\necho trained\n' >/bin/python; chmod 755 /bin/python
"""
)


def test_the_first_day_on_a_cluster_is_as_its_document_says(
    new_project: Callable[[], Project], registry_process: Server
) -> None:
    why = missing()
    if why and os.geteuid() != 0:
        pytest.skip(why)
    if why:
        pytest.fail(why, pytrace=False)
    empty = new_project()
    namespace = f"http://{registry_process.host}/first-day"
    with slurm_cluster() as cluster:
        env = {
            **empty.env,
            **cluster.env,
            "PATH": f"{Path(sys.executable).parent}:{empty.env['PATH']}",
            "SINGFACTORY_REGISTRY": namespace,
            "SINGFACTORY_STORE": str(empty.folder / "scratch-of-the-user/singfactory"),
            "SINGFACTORY_LOGIN_NODES": "*",
        }
        del env["SINGFACTORY_TMPDIR"], env["TMPDIR"]
        project = Project(empty.folder, env, empty.base)
        folder = project.recipe("pytorch-2.1", definition=PYTHON)
        recipe = folder / "recipe.toml"
        recipe.write_text(recipe.read_text().replace('version = "1.0"', 'version = "2.1.2"'))
        project.ok("make", "pytorch-2.1", SINGFACTORY_LOGIN_NODES="")
        reader = Reader(project, {"ghcr.io/your-org/images": namespace})
        for block in blocks(FIRST_DAY):
            block.example.namespace["reader"] = reader
            block.example.evaluate()
        cluster.wait_until_empty()

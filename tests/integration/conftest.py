"""Real parts for the whole session: an engine and a registry process."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.factory_project import ROOT, Project, make_project
from tests.servers import Server, docker_registry

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def engine() -> str:
    """The path of a working engine; fails with what to run when there is none."""
    if os.environ.get("SINGFACTORY_ENGINE"):
        return os.environ["SINGFACTORY_ENGINE"]
    done = subprocess.run([ROOT / "scripts/install-apptainer", "--check"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail("no working Apptainer: run scripts/install-apptainer", pytrace=False)
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def registry_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One docker-registry for the session."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def new_project(
    engine: str, registry_process: Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Project]:
    """Makes empty factories."""
    proofs = tmp_path_factory.getbasetemp() / "proofs"
    return lambda: make_project(tmp_path_factory.mktemp("factory"), engine, registry_process.host, proofs)


@pytest.fixture
def project(new_project: Callable[[], Project], request: pytest.FixtureRequest) -> Iterator[Project]:
    """An empty factory. Its folder goes with the test, unless that fails."""
    made, failed = new_project(), request.session.testsfailed
    yield made
    if request.session.testsfailed == failed:
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def namespace(registry_process: Server) -> str:
    """A fresh namespace in the registry process."""
    return f"http://{registry_process.host}/test{next(_NUMBERS)}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB, as root; other users cannot mount one that other processes see."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)

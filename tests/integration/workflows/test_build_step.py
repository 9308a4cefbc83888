"""Only one step is retried: a build, and only if the network failed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, ROOT, Project, make_project, push_base
from tests.servers import Server, docker_registry, free_port

_WAITING = 60


@pytest.fixture
def elsewhere(engine: str, registry_process: Server, tmp_path: Path) -> Project:
    """A factory whose `sleep` reports its call and waits for the file `go`."""
    project = make_project(tmp_path / "factory", engine, registry_process.host)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sleep").write_text(
        f'#!/bin/sh\necho "$1" >{tmp_path}/slept\nwhile [ ! -e {tmp_path}/go ]; do {_real("sleep")} 0.1; done\n'
    )
    (programs / "singfactory").write_text(f'#!/bin/sh\nexec {sys.executable} -m factory.cli "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return Project(project.folder, {**project.env, "PATH": path, "SINGFACTORY_RETRY_BUDGET": "1"}, project.base)


def _real(name: str) -> str:
    return next(str(folder / name) for folder in map(Path, ("/bin", "/usr/bin")) if (folder / name).exists())


def start(project: Project, recipe: str) -> subprocess.Popen[str]:
    """Start the script of the step as GitHub does."""
    text = (ROOT / ".github/workflows/build.yml").read_text()
    script = textwrap.dedent(text.partition("- name: Build\n")[2].partition("        run: |\n")[2].partition("\n\n")[0])
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    env = {**project.env, "RECIPE": recipe, "RUNNER_TEMP": str(project.folder / "temp")}
    return subprocess.Popen(
        command, cwd=project.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_build_is_retried_once_after_a_network_failure(elsewhere: Project, tmp_path: Path) -> None:
    port = free_port()
    host = f"127.0.0.1:{port}"
    (elsewhere.folder / "factory.toml").write_text(f'plain_http = ["{host}"]\n')
    elsewhere.recipe("tool", base=f"docker://{host}/base/busybox:1")
    step = start(elsewhere, "tool")
    deadline = time.monotonic() + _WAITING
    while not (tmp_path / "slept").exists():
        assert step.poll() is None, step.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with docker_registry(tmp_path / "registry", port=port):
        push_base(host)
        (tmp_path / "go").touch()
        told, _ = step.communicate(timeout=_WAITING)
    assert step.returncode == 0, told
    assert told.count("::warning title=retry::") == 1


def test_a_build_fails_after_two_network_failures(elsewhere: Project, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    elsewhere.recipe("tool", base=f"docker://127.0.0.1:{free_port()}/base/busybox:1")
    step = start(elsewhere, "tool")
    told, _ = step.communicate(timeout=_WAITING)
    assert (step.returncode, told.count("::warning title=retry::")) == (4, 1), told


def test_a_failed_recipe_is_not_retried(elsewhere: Project, tmp_path: Path) -> None:
    elsewhere.recipe("tool", definition=f"{DEFINITION}    false\n")
    step = start(elsewhere, "tool")
    told, _ = step.communicate(timeout=_WAITING)
    assert (step.returncode, (tmp_path / "slept").exists()) == (6, False), told

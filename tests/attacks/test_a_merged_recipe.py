"""The attacker wrote a recipe that a maintainer has merged. It decides what its own image holds, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.factory_project import ROOT, Project
from tests.unit.parts import candidate, report_of, write_recipe

_GIT = ("git", "-c", "user.name=Mona", "-c", "user.email=mona@example.org", "-c", "commit.gpgsign=false")


def _git(project: Project, *arguments: str) -> None:
    subprocess.run([*_GIT, "-C", str(project.folder), *arguments], check=True, capture_output=True)


def _commit(project: Project) -> None:
    _git(project, "init", "--quiet")
    _git(project, "add", "--all", "--force", ".")
    _git(project, "commit", "--quiet", "--message", "All")


@pytest.fixture
def factory_with_images(project: Project, namespace: str) -> Project:
    """A factory whose repository brings a candidate of its recipe, built and tested by nobody."""
    made = candidate(project.folder / ".singfactory/candidates", write_recipe(project.folder / "recipes"), b"evil")
    report_of(made).save(made.folder)
    return replace(project, env={**project.env, "SINGFACTORY_REGISTRY": namespace})


def test_a_committed_image_is_not_published(factory_with_images: Project) -> None:
    project = factory_with_images
    _commit(project)
    for command in (["publish", "--all"], ["publish", "tool"], ["make"], ["build", "tool"], ["test", "tool"]):
        done = project.run(*command)
        assert done.code == 2, done
        assert "came with the repository" in done.err
        assert "'.singfactory/candidates/tool-amd64/" in done.err
    assert project.ok("list", "--json").json() == []


def test_a_committed_image_behind_a_link_or_a_setting_is_not_published(factory_with_images: Project) -> None:
    project = factory_with_images
    (project.folder / ".singfactory").rename(project.folder / "innocent")
    (project.folder / ".singfactory").symlink_to("innocent")
    (project.folder / "other").symlink_to("innocent")
    _commit(project)
    for folder in (".singfactory", "other", "innocent"):
        (project.folder / "factory.toml").write_text(f'work = "{folder}"\n')
        done = project.run("publish", "--all")
        assert done.code == 2, done
        assert "came with the repository" in done.err
    assert project.ok("list", "--json").json() == []


def test_a_committed_image_is_a_problem_of_the_repository(factory_with_images: Project) -> None:
    _commit(factory_with_images)
    done = factory_with_images.run("lint")
    assert done.code == 2
    assert "git tracks the work folder: '.singfactory/candidates/tool-amd64/" in done.out


def test_a_committed_image_is_not_published_by_the_workflow(factory_with_images: Project, tmp_path: Path) -> None:
    project = factory_with_images
    _commit(project)
    elsewhere = str(tmp_path / "work")
    script = _script("publish.yml", "Publish")
    env = {f"WAVE{number}": "" for number in range(4)}
    done = _bash(project, tmp_path, script, SINGFACTORY_WORK=elsewhere, **env)
    assert done.returncode == 0, done.stderr
    assert project.ok("list", "--json", SINGFACTORY_WORK=elsewhere).json() == []
    # Even if the work folder were there, and nothing of it known to git.
    (project.folder / ".git").rename(tmp_path / "git")
    done = _bash(project, tmp_path, script, **env)
    assert done.returncode == 5
    assert "'tool-amd64' was handed over, and no job of the plan makes it" in done.stderr
    assert project.ok("list", "--json").json() == []


def _script(workflow: str, step: str) -> str:
    """What a step of a workflow file runs."""
    text = (
        (ROOT / ".github/workflows" / workflow)
        .read_text()
        .partition(f"- name: {step}\n")[2]
        .partition("\n        run: ")[2]
    )
    first, _, rest = text.partition("\n")
    return first if first != "|" else textwrap.dedent(rest.partition("\n\n")[0])


def _bash(project: Project, folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does."""
    program = folder / "bin/singfactory"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\nexec python3 -m factory.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{ROOT / '.venv/bin'}:{project.env['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=project.folder,
        env={**project.env, "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def strange_registry() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a listener that is no registry, and all that it hears."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                heard.append(caller.recv(65536))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize("step", ["Plan", "Report"])
@pytest.mark.parametrize("separator", [" ", "\n", "\t"])
def test_a_name_that_somebody_asks_for_names_no_registry(
    project: Project,
    tmp_path: Path,
    strange_registry: tuple[str, list[bytes]],
    step: str,
    separator: str,
) -> None:
    address, heard = strange_registry
    write_recipe(project.folder / "recipes")
    login = {"SINGFACTORY_USERNAME": "robot", "SINGFACTORY_PASSWORD": "secret"}
    names = f"tool{separator}--registry={address}"
    env = {"SINGFACTORY_RETRY_BUDGET": "1", "FORCE": "false", **login}
    done = _bash(project, tmp_path, _script("publish.yml", step), NAMES=names, **env)
    assert done.returncode == 2, done
    assert "not a recipe name" in done.stderr
    assert heard == []

"""Which program builds Dockerfiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.engine.builder import find
from factory.errors import NotFound


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return tmp_path


def program(folder: Path, name: str, said: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{said}'\n")
    (folder / name).chmod(0o755)


def env(folder: Path) -> dict[str, str]:
    return {"PATH": str(folder)}


def test_buildah_comes_before_podman(programs: Path) -> None:
    program(programs, "podman", "podman version 4.9.3")
    assert find("", env(programs)).label == "podman 4.9.3"
    assert find("", env(programs)).takes_here_documents
    program(programs, "buildah", "buildah version 1.28.2 (image-spec 1.1.0-rc2, runtime-spec 1.0.2-dev)")
    found = find("", env(programs))
    assert (found.label, found.takes_here_documents) == ("buildah 1.28.2", False)
    assert find("podman", env(programs)).kind == "podman"
    program(programs, "buildah", "buildah version 1.33.7 (image-spec 1.1.0-rc.5, runtime-spec 1.1.0)")
    assert find(str(programs / "buildah"), env(programs)).takes_here_documents


def test_an_old_builder_is_passed_over_and_named(programs: Path) -> None:
    program(programs, "buildah", "buildah version 1.19.6 (image-spec 1.0.1-dev)")
    with pytest.raises(NotFound) as raised:
        find("", env(programs))
    assert raised.value.what == "no program on this machine builds Dockerfiles"
    assert raised.value.why == f"{programs}/buildah is buildah 1.19.6, which is too old"
    assert "apt-get install buildah" in raised.value.fix
    program(programs, "podman", "podman version 4.0.0")
    assert find("", env(programs)).kind == "podman"


def test_docker_alone_is_not_enough(programs: Path) -> None:
    program(programs, "docker", "Docker version 28.2.2, build e6534b4")
    with pytest.raises(NotFound, match="docker needs a daemon that runs as root, which singfactory does not use"):
        find("", env(programs))


@pytest.mark.parametrize("wanted", ["kaniko", "docker"])
def test_a_configured_builder_that_cannot_be_used_is_named(programs: Path, wanted: str) -> None:
    program(programs, "docker", "Docker version 28.2.2, build e6534b4")
    with pytest.raises(NotFound) as raised:
        find(wanted, env(programs))
    assert raised.value.what == f"the configured builder of Dockerfiles, {wanted}, cannot be used"
    assert "dockerfile_builder" in raised.value.fix

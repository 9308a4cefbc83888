from __future__ import annotations

from pathlib import Path

import pytest

from factory.errors import RecipeError
from factory.recipes.definition.agents import host_problems, refuse_host
from factory.recipes.definition.parser import parse

MIRROR = "http://mirror.site/debian"


def problems(text: str) -> list[str]:
    return [problem.message for problem in host_problems(parse(text, Path("image.def")), MIRROR)]


@pytest.mark.parametrize(
    "text",
    [
        "Bootstrap: docker\nFrom: ghcr.io/org/x:1\nStage: a\n",
        "Bootstrap: oras\nFrom: ghcr.io/org/x:1\n",
        "Bootstrap: library\nFrom: sylabs/default/alpine:3.20\n",
        "Bootstrap: shub\nFrom: user/image:1\n",
        "Bootstrap: recipe\nFrom: python-3.11\n",
        "Bootstrap: scratch\n",
        f"Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {MIRROR}\nInclude: python3,libstdc++6 git\n",
        "Bootstrap: debootstrap\nOSVersion: noble\nMirrorURL: http://archive.ubuntu.com/ubuntu/\n",
        "Bootstrap: debootstrap\nOSVersion: sid\nMirrorURL: https://snapshot.debian.org/archive/debian/20240101T0000Z/\n",
    ],
)
def test_what_stays_in_the_container_may_be_used(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Bootstrap: docker\n", "Bootstrap: docker needs the header From:"),
        ("Bootstrap: debootstrap\nMirrorURL: http://x\n", "Bootstrap: debootstrap needs the header OSVersion:"),
        ("Bootstrap: Docker\nFrom: x\n", "Bootstrap: 'Docker' must be lower case"),
        ("Bootstrap: Arch\n", "Bootstrap: arch runs downloaded programs on the build host, outside of the container"),
        ("Bootstrap: \n", "Bootstrap: '' is unknown"),
        ("Bootstrap: docker://\nFrom: x\n", "Bootstrap: 'docker://' is not the name of an agent"),
        ("Bootstrap: localimage\nFrom: x.sif\n", "Bootstrap: localimage reads a file of the build host"),
        ("Bootstrap: oci-archive\nFrom: x.tar\n", "Bootstrap: oci-archive reads a file of the build host"),
        (
            "Bootstrap: buildkit\nFrom: .\nTarget: a\nFrontend: b\nFilename: c\nBuildArgs: d=e\n",
            "Bootstrap: buildkit runs a Dockerfile's commands with a BuildKit or Docker daemon of the build host",
        ),
        (
            "Bootstrap: dockerfile\nFrom: .\n",
            "Bootstrap: dockerfile runs a Dockerfile's commands with a BuildKit or Docker daemon of the build host",
        ),
        ("Bootstrap: docker\nFrom: x\nTarget: y\n", "Target: cannot be used with Bootstrap: docker"),
        ("Bootstrap: docker\nFrom: x\nbuildargs: y=z\n", "BuildArgs: cannot be used with Bootstrap: docker"),
        ("Bootstrap: library\nFrom: host/a/b/c\n", "From: 'host/a/b/c' is not a library image"),
        ("Bootstrap: shub\nFrom: x\nFingerprints: 1\n", "Fingerprints: cannot be used with Bootstrap: shub"),
        ("Bootstrap: scratch\nOtherURL1: x\n", "OTHERURL1: cannot be used with Bootstrap: scratch"),
    ],
)
def test_what_does_not_is_a_problem(text: str, problem: str) -> None:
    assert problem in problems(text)


@pytest.mark.parametrize(
    "mirror",
    [
        "http://evil.example/debian",
        "http://evildebian.org/debian",
        "http://debian.org.evil.example/",
        "http://u:p@ftp.debian.org/debian",
        "http://ftp.debian.org/../x",
        "ftp://ftp.debian.org/debian",
        "file:///etc",
        "ssh://h/x",
        MIRROR + "/x",
    ],
)
def test_a_mirror_is_an_archive_or_the_factorys(mirror: str) -> None:
    (problem,) = problems(f"Bootstrap: debootstrap\nOSVersion: x\nMirrorURL: {mirror}\n")
    assert "is not a Debian or Ubuntu archive" in problem


def test_every_stage_counts_and_the_first_problem_ends_a_build() -> None:
    text = "Bootstrap: docker\nFrom: a:1\nBootstrap: busybox\nMirrorURL: http://x\n%setup\n x\n"
    with pytest.raises(RecipeError, match=r"image\.def:5: %setup runs on the build host"):
        refuse_host(parse(text, Path("image.def")), MIRROR)
    assert len(problems(text)) == 2

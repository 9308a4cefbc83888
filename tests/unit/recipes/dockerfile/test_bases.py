"""The images and stages that a build of a Dockerfile needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.recipes.dockerfile.bases import images
from factory.recipes.dockerfile.parser import parse
from factory.recipes.model import ProblemError

PATH = Path("Dockerfile")


def needed(text: str, target: str = "", args: Mapping[str, str] | None = None, arch: str = "amd64") -> list[str]:
    return [f"{base.stage}:{base.line} {base.image}" for base in images(parse(text, PATH), args or {}, target, arch)]


MULTI = """\
ARG TAG=1.21
ARG BASE=debian:${TAG:+12}
FROM --platform=$BUILDPLATFORM golang:$TAG AS build
RUN --mount=type=bind,from=tools:2,target=/t --mount=type=cache,target=/c go build
FROM node AS docs
FROM $BASE
COPY --from=build /x /x
COPY --from=docker.io/library/alpine:3 /etc/y /y
COPY --from=0 /z /z
FROM scratch AS empty
"""


def test_only_what_the_target_needs_is_listed() -> None:
    assert needed(MULTI) == []
    assert needed(MULTI, "2") == ["0:3 golang:1.21", "0:4 tools:2", "2:6 debian:12", "2:8 docker.io/library/alpine:3"]
    assert needed(MULTI, "docs") == ["1:5 node"]
    assert needed(MULTI, "DOCS") == ["1:5 node"]


def test_build_arguments_replace_defaults() -> None:
    assert needed(MULTI, "build", {"TAG": "1.22"}) == ["0:3 golang:1.22", "0:4 tools:2"]


def test_a_stage_hides_an_image_of_its_name() -> None:
    assert needed("FROM busybox AS debian\nFROM debian\n") == ["0:1 busybox"]
    assert needed("FROM debian\nFROM busybox AS debian\n", "0") == ["0:1 debian"]


def test_the_platform_of_a_stage_counts() -> None:
    dockerfile = parse("FROM --platform=linux/arm64/v8 a\n", PATH)
    (base,) = images(dockerfile, {}, "", "amd64")
    assert base.arch == "arm64"
    dockerfile = parse("FROM --platform=$TARGETPLATFORM a:$TARGETARCH\n", PATH)
    (base,) = images(dockerfile, {}, "", "arm64")
    assert (base.arch, base.image) == ("arm64", "a:arm64")


@pytest.mark.parametrize(
    ("text", "target", "line", "message", "remedy"),
    [
        (MULTI, "biuld", 0, "there is no stage 'biuld'", "did you mean build?"),
        (MULTI, "9", 0, "there is no stage '9'", "build"),
        ("FROM a AS builder\nFROM b\nCOPY --from=buidler x y\n", "", 3, "no stage 'buidler'", "write builder"),
        ("FROM a AS builder\nFROM buildr\n", "", 2, "no stage 'buildr'", "write builder"),
        ("FROM a\nCOPY --from=b x y\nFROM c AS b\n", "0", 2, "not above", "move it up"),
        ("FROM a\nCOPY --from=0 x y\n", "", 2, "this is stage 0", "earlier"),
        ("FROM a\nCOPY --from=$x x y\n", "", 2, "replaces no variables", "AS NAME"),
        ("FROM $x\n", "", 1, "the argument x has no value", "ARG x=DEFAULT above"),
        ("ARG x\nFROM $x\n", "", 2, "the argument x has no value", "--build-arg x=VALUE"),
        ("FROM ${x:?needed}\n", "", 1, "x: needed", "correct"),
        ("FROM a\nARG x=1\nFROM b$x:$x\n", "", 3, "not an image", "NAME"),
        ("FROM UPPER/Case\n", "", 1, "not an image", "lower case"),
        ("FROM -x\n", "", 1, "not an image", "NAME"),
        ("FROM a@sha256:12\n", "", 1, "not an image", "NAME"),
        ("FROM --platform=linux/s390x a\n", "", 1, "the platform 'linux/s390x'", "linux/arm64"),
        ("FROM --platform=windows/amd64 a\n", "", 1, "windows/amd64", "linux/amd64"),
        ("FROM --platform=$none a\n", "", 1, "the argument none has no value", "ARG none"),
        ("FROM a\nRUN --mount=type=bnd x\n", "", 2, "no type 'bnd'", "type=bind"),
        ("FROM a\nRUN --mount=type=cache,traget=/x x\n", "", 2, "no key 'traget'", "target"),
        ('FROM a\nRUN --mount=\\"x x\n', "", 2, "cannot be read", "--mount="),
    ],
)
def test_each_mistake_has_a_line_and_a_way_out(text: str, target: str, line: int, message: str, remedy: str) -> None:
    with pytest.raises(ProblemError) as caught:
        needed(text, target)
    problem = caught.value.problem
    assert problem.place.line == line
    assert message in problem.message
    assert remedy in problem.remedy

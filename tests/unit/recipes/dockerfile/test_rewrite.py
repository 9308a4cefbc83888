"""The Dockerfile that a builder gets, and what is refused before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.recipes.dockerfile import refused
from factory.recipes.dockerfile.context import Context
from factory.recipes.dockerfile.parser import parse
from factory.recipes.dockerfile.rewrite import Rewritten, rewritten
from factory.recipes.dockerfile.steps import Target
from factory.recipes.model import ProblemError

PATH = Path("Dockerfile")


def written(text: str, target: str = "", *, here_documents: bool = True, added: tuple[str, ...] = ()) -> Rewritten:
    wanted = Target(parse(text, PATH), {}, target, "amd64")
    return rewritten(wanted, added, here_documents=here_documents)


FILE = """\
# syntax=docker/dockerfile:1
ARG TAG=3.12
FROM --platform=linux/amd64 python:$TAG AS build
RUN echo a \\
  # why
  b
FROM alpine AS unused
RUN false
FROM build
COPY --link --from=0 --chown=1:2 /a /b
COPY --from=docker.io/library/golang:1 /go /go
RUN --mount=type=bind,from=build,source=/a,target=/b --mount=type=cache,target=/c true
RUN cat <<A <<-B
a $X
A
\tb
\tB
CMD ["a", "b"]
"""


def test_images_and_stages_have_names_that_nothing_fetches() -> None:
    found = written(FILE, added=("TZ",))
    assert (
        found.text
        == """\
ARG TAG=3.12
FROM localhost/singfactory/base-0 AS stage0
ARG TZ
RUN echo a   b
FROM stage0 AS stage2
ARG TZ
COPY --from=stage0 --chown=1:2 /a /b
COPY --from=localhost/singfactory/base-1 /go /go
RUN --mount=type=bind,from=stage0,source=/a,target=/b --mount=type=cache,target=/c true
RUN cat <<A <<-B
a $X
A
\tb
B
CMD ["a", "b"]
"""
    )
    assert found.bases == {
        "localhost/singfactory/base-0": "python:3.12",
        "localhost/singfactory/base-1": "docker.io/library/golang:1",
    }
    assert [found.line_of(1, step) for step in (1, 2, 3)] == [3, 3, 4]
    assert [found.line_of(2, step) for step in (1, 3, 5, 7, 8)] == [9, 10, 12, 18, 0]
    assert found.line_of(0, 0) == found.line_of(7, 1) == 0


def test_a_builder_without_here_documents_gets_arrays_and_files() -> None:
    text = """\
FROM scratch
RUN <<EOF
echo one
echo "$two"
EOF
SHELL ["/bin/bash", "-c"]
RUN python3 <<-EOF
	print(1)
	EOF
RUN --mount=type=tmpfs,target=/t <<EOF
#!/usr/bin/python3
print(2)
EOF
COPY <<a.txt <<'b.txt' there /dst/
A
a.txt
$B
b.txt
"""
    found = written(text, here_documents=False)
    assert found.text.splitlines()[1:] == [
        'RUN ["/bin/sh", "-c", "echo one\\necho \\"$two\\"\\n"]',
        'SHELL ["/bin/bash", "-c"]',
        'RUN ["/bin/bash", "-c", "python3 <<-EOF\\n\\tprint(1)\\nEOF\\n"]',
        (
            "RUN --mount=type=tmpfs,target=/t --mount=type=bind,source=.singfactory-here/singfactory-0,"
            'target=/run/singfactory-0 ["/run/singfactory-0"]'
        ),
        'COPY [".singfactory-here/1/a.txt", ".singfactory-here/2/b.txt", "there", "/dst/"]',
    ]
    assert found.documents == {
        ".singfactory-here/singfactory-0": ("#!/usr/bin/python3\nprint(2)\n", True),
        ".singfactory-here/1/a.txt": ("A\n", False),
        ".singfactory-here/2/b.txt": ("$B\n", False),
    }


def test_variables_in_a_copied_here_document_need_a_builder_that_reads_them() -> None:
    text = "FROM scratch\nCOPY <<a /a\n$B\na\n"
    assert written(text).text.endswith("COPY <<a /a\n$B\na\n")
    with pytest.raises(ProblemError, match=r"Dockerfile:2: COPY has a here-document with variables"):
        written(text, here_documents=False)


def test_a_backslash_at_the_end_cannot_swallow_the_next_instruction() -> None:
    found = written("FROM scratch\nRUN echo a\\\\\nUSER nobody\n")
    assert found.text.splitlines()[1:] == ['RUN ["/bin/sh", "-c", "echo a\\\\\\\\"]', "USER nobody"]
    with pytest.raises(ProblemError, match="LABEL ends with"):
        written("FROM scratch\nLABEL a=b\\\\\nUSER nobody\n")


def problems(folder: Path, text: str, args: Mapping[str, str] | None = None, target: str = "") -> list[str]:
    dockerfile = parse(text, folder / "Dockerfile")
    found = refused.problems(dockerfile, args or {}, target, "amd64", Context(folder, "Dockerfile"))
    return [f"{problem.place.line}: {problem.message}; {problem.remedy}" for problem in found]


_NO_SECRETS = "fetch what needs a login before the build, put it in the recipe's folder, and COPY it"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "RUN --mount=type=secret,id=x true",
            (
                "RUN --mount=type=secret would give a secret of this machine to the "
                "recipe's commands, which anybody may "
                f"have written; {_NO_SECRETS}"
            ),
        ),
        (
            "ONBUILD RUN --mount=type=ssh true",
            (
                "RUN --mount=type=ssh would let the recipe's commands, which anybody "
                "may have written, use your SSH keys; "
                f"{_NO_SECRETS}"
            ),
        ),
        ("RUN --security=insecure id", "RUN --security='insecure' is not allowed: builds are contained; remove it"),
        (
            "RUN --network=none id",
            "RUN --network=none is not supported here: a build shares the machine's network; remove it",
        ),
        (
            "ADD git@github.com:a/b.git /x",
            "ADD 'git@github.com:a/b.git' fetches a repository; clone it with RUN git clone, at a full commit hash",
        ),
        (
            "ADD https://github.com/a/b.git#main /x",
            (
                "ADD 'https://github.com/a/b.git#main' fetches a repository; "
                "clone it with RUN git clone, at a full commit hash"
            ),
        ),
        ("COPY --chmod=u+x a /b", "COPY --chmod='u+x' is not a number; write an octal mode, as in --chmod=755"),
        ("COPY --parents a /b", "COPY --parents is not supported here; write one COPY for each folder"),
        (
            "COPY $HOME/x /b",
            (
                "COPY '$HOME/x': neither ARG nor ENV above gives HOME a value; "
                "write the path, or ARG with a default: the files of a build must be known before it starts"
            ),
        ),
    ],
)
def test_what_no_build_may_do_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a").write_text("")
    assert problems(tmp_path, f"FROM debian:12\n{line}\n") == [f"2: {message}"]


def test_other_problems_are_named_too(tmp_path: Path) -> None:
    assert problems(tmp_path, "# syntax=evil/frontend:1\nFROM scratch\n")[0].startswith(
        "1: the frontend 'evil/frontend:1' is a program that reads this file, and it is not run"
    )
    assert problems(tmp_path, "ARG VERSION\nFROM debian:12\n", {"VERSIN": "1"}) == [
        "0: the argument 'VERSIN' of [build] args has no ARG in the Dockerfile; did you mean VERSION?"
    ]
    assert problems(tmp_path, "FROM debian:12 AS build\n", target="biuld")[0].endswith("did you mean build?")
    (found,) = problems(tmp_path, "FROM --platform=linux/arm64 debian:12\n")
    assert found.startswith("1: FROM: this stage is for arm64, in an image for amd64: it cannot run here; ")


def test_arguments_and_env_give_sources_their_values(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("")
    text = "ARG A=one\nFROM debian:12 AS x\nARG A\nENV B=two\nFROM x\nCOPY $A ${B} /\n"
    assert problems(tmp_path, text) == []
    target = Target(parse(text, PATH), {"A": "three"}, "", "amd64")
    assert [(source.path, source.line) for source in target.sources()] == [("three", 6), ("two", 6)]

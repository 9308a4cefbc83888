"""The definition that a Dockerfile becomes. Whether it builds the same image: benchmarks/dockerfiles.py."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.recipes.definition.parser import parse as parse_definition
from factory.recipes.dockerfile.parser import parse, read
from factory.recipes.dockerfile.source_tree import Tree
from factory.recipes.dockerfile.translate import Translation, translate
from factory.recipes.lint.lint import lint
from factory.recipes.model import ProblemError

CASES = sorted((Path(__file__).parents[3] / "dockerfiles").iterdir())
BASE = "FROM debian:12\n"
RECIPE = """\
[recipe]
name = "{name}"
version = "1"
summary = "x"
license = "MIT"
maintainers = ["@x"]
"""


def convert(folder: Path, text: str, args: Mapping[str, str] | None = None, target: str = "") -> Translation:
    return translate(parse(text, folder / "Dockerfile"), Tree(folder), args or {}, target=target)


def options_of(case: Path) -> tuple[dict[str, str], str]:
    words = shlex.split((case / "options").read_text()) if (case / "options").exists() else []
    pairs = list(zip(words[::2], words[1::2], strict=True))
    args = dict(text.split("=", 1) for flag, text in pairs if flag == "--build-arg")
    return args, next((text for flag, text in pairs if flag == "--target"), "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_dockerfile_becomes_a_recipe_without_errors(case: Path, tmp_path: Path) -> None:
    args, target = options_of(case)
    translation = translate(read(case, "Dockerfile"), Tree(case), args, target=target)
    folder = tmp_path / "converted"
    subprocess.run(["/bin/cp", "-a", case, folder], check=True)
    (folder / "recipe.toml").write_text(RECIPE.format(name="converted"))
    (folder / "image.def").write_text(translation.text)
    assert [str(problem) for problem in lint(folder, []) if not problem.warning] == []


def test_simple_files_become_what_people_write(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "src").mkdir(mode=0o755)
    (tmp_path / "src/main.py").write_text("")
    text = """\
FROM python:3.11-slim
ENV LANG=C.UTF-8
WORKDIR /app
COPY requirements.txt .
COPY src/ src/
RUN apt-get update && apt-get install -y git \\
    && rm -rf /var/lib/apt/lists/*
RUN pip install -r requirements.txt
ENTRYPOINT ["python", "src/main.py"]
"""
    assert (
        convert(tmp_path, text).text
        == """\
# Translated from Dockerfile by singfactory convert.

Bootstrap: docker
From: python:3.11-slim

%files
    requirements.txt /app/requirements.txt
    src/. /app/src/

%post
    umask 022
    export LANG=C.UTF-8
    mkdir -p /app
    cd /app
    (
        apt-get update &&
        apt-get install -y git &&
        rm -rf /var/lib/apt/lists/*
    )
    pip install -r requirements.txt

%environment
    export LANG=C.UTF-8

%runscript
    cd /app || exit
    exec python src/main.py "$@"
"""
    )


def test_an_exact_translation_has_no_losses(tmp_path: Path) -> None:
    assert convert(tmp_path, BASE + "RUN echo x\n").losses == ()


LOST = [
    ("EXPOSE 80\n", "EXPOSE 80", "free port"),
    ("VOLUME /data\n", "VOLUME /data", "--bind MINE:/data"),
    ("STOPSIGNAL 9\n", "STOPSIGNAL 9", "sbatch --signal"),
    ("HEALTHCHECK CMD x\n", "HEALTHCHECK", "recipe.toml"),
    ("ONBUILD RUN x\n", "ONBUILD RUN x", "that build from this image"),
    ("USER app\n", "USER app", "chmod -R a+rX"),
    ("USER 1000\nRUN x\n", "RUN runs as root", "useradd"),
    ("USER $WHO\nRUN x\n", "only the base image knows", "name"),
    ("ENV A=$HOME/x\n", "$HOME is empty", "ENV HOME"),
    ("USER app:other\nRUN x\n", "own groups", "usermod"),
    ("RUN --mount=type=secret,id=t x\n", "t is missing", "COPY"),
    ("RUN --mount=type=ssh x\n", "type=ssh", "COPY"),
    ("RUN --network=none x\n", "--network=none", "remove"),
    ("RUN --security=insecure x\n", "--security", "remove"),
    ("RUN --device=x y\n", "--device", "when the image runs"),
    ("ENV a.b=1\n", "ENV a.b", "letters"),
    ("ARG a-b=1\n", "ARG a-b", "letters"),
    ("ENV A=1\nARG A=2\n", "ARG A after ENV A", "another name"),
    ('LABEL "a b"=1\n', "LABEL a b", "without"),
    ("COPY f x/y\n", "relative to the base image's WORKDIR", "WORKDIR"),
    ("WORKDIR app\n", "relative to the base image's WORKDIR", "WORKDIR"),
    ("WORKDIR /tmp/x\n", "no such folder", "/opt/app"),
    ("COPY f /tmp/f\n", "not in the image", "/opt"),
    ("ADD https://example.org/f /f\n", "only root", "--chmod=644"),
    ("ADD https://example.org/r.git /f\n", "not fetched", "git clone"),
    ('CMD ["./x"]\n', "base image's WORKDIR", "WORKDIR"),
    ("COPY --from=x --exclude=y a /b\n", "--exclude", "after"),
    ("COPY --from=x --parents a /b\n", "--parents", "own place"),
]


@pytest.mark.parametrize(("text", "message", "remedy"), LOST)
def test_each_loss_is_reported_with_its_line(tmp_path: Path, text: str, message: str, remedy: str) -> None:
    (tmp_path / "f").write_text("f")
    losses = convert(tmp_path, BASE + text).losses
    assert any(message in loss.message and remedy in loss.remedy for loss in losses), losses
    assert {loss.place.line for loss in losses} <= {1, 2, 3}


REFUSED = [
    ("COPY missing /x\n", 2, "there is no missing to copy", "--context"),
    ("COPY *.none /x\n", 2, "there is no *.none to copy", "--context"),
    ("COPY ../f /x\n", 2, "leaves the build context", "into the context"),
    ("COPY f f2 /x\n", 2, "2 files", "/x/"),
    ("COPY f $(id) /x/\n", 2, "there is no $(id)", "--context"),
    ("COPY $UNKNOWN /x\n", 2, "does not set", "--build-arg"),
    ("COPY out /x\n", 2, "out", "context"),
    ("COPY [[:digit:]] /x\n", 2, "there is no", "--context"),
    ("COPY a[ /x\n", 2, "class", "pattern"),
    ("COPY q'uote /x\n", 2, "quote", "quotes"),
    ("RUN " + "x" * 50_000 + "\n", 2, "more than the engine reads", "COPY it"),
    ("ENV A='\n", 2, "no closing single quote", "quotes"),
    ("RUN --mount=type=bind,source=none,target=/x y\n", 2, "there is no none", "--context"),
    ("RUN --mount=type=cache,target=/ y\n", 2, "cannot be covered", "folder"),
    ("RUN --mount=type=secrt,id=t y\n", 2, "no type 'secrt'", "did you mean type=secret?"),
    ("RUN --mount=type=cache,targt=/x y\n", 2, "no key 'targt'", "did you mean target?"),
]


@pytest.mark.parametrize(("text", "line", "message", "remedy"), REFUSED)
def test_each_error_has_a_line_and_a_way_out(tmp_path: Path, text: str, line: int, message: str, remedy: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "outside").write_text("secret")
    (context / "out").symlink_to("../outside")
    for name in ("f", "f2"):
        (context / name).write_text(name)
    with pytest.raises(ProblemError) as caught:
        convert(context, BASE + text)
    problem = caught.value.problem
    assert problem.place.line == line
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "text",
    [
        "RUN echo {{ name }}\n",
        "RUN echo '{{name}}' && true\n",
        "RUN <<EOF\n%post\n{{ x }}\nbootstrap: docker\nEOF\n",
        "RUN cat <<'EOF' > /f\n%files\n\t%setup\nBootstrap: x\nEOF\n",
        "COPY <<EOF /f\n%post\n{{ x }}\nEOF\n",
        "ENV A='{{ x }}'\n",
        "LABEL a='{{ x }}'\n",
        'CMD ["{{ x }}"]\n',
        "WORKDIR '/{{ x }}'\n",
        "ARG x={{y}}\n",
        'RUN ["%post"]\n',
    ],
)
def test_text_for_a_shell_means_nothing_to_the_engine(tmp_path: Path, text: str) -> None:
    definition = parse_definition(convert(tmp_path, BASE + text).text, tmp_path / "x.def")
    assert len(definition.stages) == 1
    assert definition.variables() == ()
    assert {section.name for section in definition.stages[0].sections} <= {"post", "environment", "runscript"}


def test_a_long_file_is_cut_into_sections_that_the_engine_can_read(tmp_path: Path) -> None:
    text = BASE + "".join(f"RUN echo {'x' * 1000} {number}\n" for number in range(150))
    definition = parse_definition(convert(tmp_path, text).text, tmp_path / "x.def")
    assert len(definition.stages[0].named("post")) > 1
    assert definition.too_long() is None


def test_a_base_with_tag_and_digest_keeps_the_digest(tmp_path: Path) -> None:
    text = f"FROM ghcr.io/a/b:1@sha256:{'0' * 64}\n"
    assert f"From: ghcr.io/a/b@sha256:{'0' * 64}\n" in convert(tmp_path, text).text


def test_files_go_in_place_after_what_has_run_before(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    text = convert(tmp_path, BASE + "COPY f /early\nRUN x\nCOPY f /late\n").text
    assert "    f /early\n    f /.copied/4/f\n" in text
    assert text.index("    x\n") < text.index("put /late /.copied/4/f")
    assert "rm -rf /.copied" in text


def test_secrets_in_a_context_stay_out(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text(".env\n")
    (tmp_path / ".env").write_text("TOKEN=1")
    (tmp_path / "f").write_text("f")
    text = convert(tmp_path, BASE + "COPY . /app/\n").text
    assert ".env" not in text
    assert "/app/f" in text or "/f\n" in text


def test_variables_of_the_base_stay_references(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    text = convert(tmp_path, BASE + "COPY --chown=$UID_OF_BASE --chmod=$M f ${DIR:-/x}/f\nENV A=$B\nLABEL a=$C\n").text
    assert 'chown -R "${UID_OF_BASE}:" /.copied/2' in text
    assert 'put "${DIR:-/x}/f" /.copied/2/f' in text
    assert 'export A="${B}"\n    keep A' in text
    assert not {"\ue000", "\ue001"} & set(text)


def test_what_only_the_base_can_tell_is_noted(tmp_path: Path) -> None:
    (note,) = convert(tmp_path, BASE + "RUN x\n").notes
    assert "ONBUILD" in note.message
    assert note.place.line == 1


@pytest.mark.slow
def test_a_large_context_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2100):
        (folder / f"{number}.txt").write_text("")
        (folder / f"{number}.log").write_text("")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    with pytest.raises(ProblemError, match="more than 2000 lines"):
        convert(tmp_path, BASE + "RUN x\nCOPY many /many\n")

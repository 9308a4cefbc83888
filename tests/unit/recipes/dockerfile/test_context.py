"""The files that a Dockerfile build reads from a recipe's folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from factory.recipes.dockerfile.context import Context, Source, is_remote
from factory.recipes.model import ProblemError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src/deep").mkdir(parents=True)
    for name in ("src/a.py", "src/b.py", "src/deep/c.py", "src/skip.pyc", "top.txt", ".env", "recipe.toml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "src/a.py").chmod(0o700)
    (tmp_path / "current").symlink_to("src")
    (tmp_path / ".dockerignore").write_text("**/*.pyc\n")
    return tmp_path


def paths(folder: Path, *sources: str) -> list[str]:
    context = Context(folder, "Dockerfile")
    return [entry.path for entry in context.entries(Source("COPY", source, 3) for source in sources)]


def refusal(folder: Path, source: str) -> str:
    with pytest.raises(ProblemError) as raised:
        paths(folder, source)
    assert raised.value.problem.place.line == 3
    return f"{raised.value.problem.message}; {raised.value.problem.remedy}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("top.txt", ["top.txt"]),
        ("/top.txt", ["top.txt"]),
        ("./src/../top.txt", ["top.txt"]),
        ("src/*.py", ["src/a.py", "src/b.py"]),
        ("s?c/[a]*", ["src/a.py"]),
        ("src/", ["src", "src/a.py", "src/b.py", "src/deep", "src/deep/c.py"]),
        ("*/deep", ["current", "src/deep", "src/deep/c.py"]),
        ("current/a.py", ["current", "src/a.py"]),
        (".env", [".env"]),
    ],
)
def test_sources_name_files_as_in_docker(folder: Path, source: str, found: list[str]) -> None:
    assert paths(folder, source) == found


def test_the_whole_folder_leaves_out_the_factorys_files_and_what_is_hidden(folder: Path) -> None:
    found = paths(folder, ".")
    assert {"current", ".env", "src/deep/c.py", ".dockerignore"} <= set(found)
    assert not {"recipe.toml", "src/skip.pyc"} & set(found)


def test_an_exception_in_a_hidden_folder_is_found(folder: Path) -> None:
    (folder / ".dockerignore").write_text("src\n!src/deep/c.py\n")
    assert paths(folder, "src") == ["src/deep/c.py"]


def test_digests_depend_on_content_and_on_the_executable_bit_alone(folder: Path) -> None:
    context = Context(folder, "Dockerfile")
    entries = context.entries([Source("COPY", "src/a.py", 1), Source("COPY", "current/b.py", 2)])
    found = dict(context.digests(entries))
    assert found["src/a.py"].startswith("0755:sha256:")
    assert found["src/b.py"].startswith("0644:sha256:")
    assert found["current"] == "link:src"
    (folder / "src/b.py").chmod(0o604)
    assert dict(context.digests(entries)) == found


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("../x", "COPY: '../x' leaves the recipe's folder; put the file in the recipe's folder"),
        ("src/../../x", "COPY: 'src/../../x' leaves the recipe's folder; put the file in the recipe's folder"),
        ("src/a.pi", "COPY: 'src/a.pi' does not exist in the recipe's folder; did you mean src/a.py?"),
        ("*.none", "COPY: '*.none' does not exist in the recipe's folder; put it there, or correct the path"),
        (
            "/etc/passwd",
            (
                "COPY: '/etc/passwd' does not exist in the recipe's folder; "
                "in a Dockerfile, / is the recipe's folder; put it there, or correct the path"
            ),
        ),
        (
            "src/skip.pyc",
            "COPY: 'src/skip.pyc' is hidden by .dockerignore; write !src/skip.pyc at the end of .dockerignore",
        ),
        ("[", "COPY: '[' has a character class without ]; correct the pattern"),
    ],
)
def test_a_source_that_names_nothing_is_refused(folder: Path, source: str, message: str) -> None:
    assert refusal(folder, source) == message


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "src/../../outside"])
@pytest.mark.parametrize("source", ["out", ".", "o*", "out/deeper"])
def test_links_out_of_the_folder_are_refused(folder: Path, target: str, source: str) -> None:
    (folder / "out").symlink_to(target)
    assert refusal(folder, source).endswith(
        "put the file itself in the recipe's folder, or create the link with RUN ln -s"
    )


def test_a_folder_that_contains_itself_ends(folder: Path) -> None:
    (folder / "src/loop").symlink_to(".")
    assert "src/loop" in paths(folder, "src")


def test_pipes_are_refused(folder: Path) -> None:
    os.mkfifo(folder / "src/pipe")
    assert refusal(folder, "src").startswith("COPY: 'src/pipe' is neither a file nor a folder; ")


def test_remote_sources_of_add_are_distinguished_in_linear_time() -> None:
    remote = ("https://x.org/a", "git@x.org:a/b", "user@x.org:a/b", "ssh://x.org/a")
    assert [is_remote(source) for source in (*remote, "a@b", "a@b@c:d", "a/b@c:d")] == [True] * 4 + [False] * 3
    before = time.process_time()
    assert not is_remote("@" * 100_000)
    assert not is_remote("x@" * 100_000)
    assert time.process_time() - before < 1

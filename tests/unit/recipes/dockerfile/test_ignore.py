"""What .dockerignore hides: the rules of github.com/moby/patternmatcher."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from factory.recipes.dockerfile import globs, ignore
from factory.recipes.model import ProblemError


def hidden(folder: Path, text: str, *paths: str, name: str = "Dockerfile") -> list[str]:
    (folder / ".dockerignore").write_text(text)
    found = ignore.read(folder, name)
    return [path for path in paths if found.hides(path)]


@pytest.mark.parametrize(
    ("patterns", "those_hidden"),
    [
        ("*.pyc", ["a.pyc"]),
        ("**/*.pyc", ["a.pyc", "src/b.pyc", "src/deep/c.pyc"]),
        ("/src/", ["src", "src/b.pyc", "src/deep/c.pyc", "src/main.py"]),
        ("src/**", ["src/b.pyc", "src/deep/c.pyc", "src/main.py"]),
        ("src/*/*.pyc", ["src/deep/c.pyc"]),
        ("**/deep", ["src/deep/c.pyc"]),
        ("# *\n\n  main.??  ", ["main.py"]),
        ("*\n!src/main.py", ["a.pyc", "src", "src/b.pyc", "src/deep/c.pyc", "main.py"]),
        ("*\n!src", ["a.pyc", "main.py"]),
        ("!src\nsrc", ["src", "src/b.pyc", "src/deep/c.pyc", "src/main.py"]),
        ("[a-m]*.p[^y]*", []),
        ("[!a]*", ["a.pyc"]),  # ! is an ordinary character here
        ("[^a-l]ain.py", ["main.py"]),
        ("src/../main.py", ["main.py"]),
        ("./main.py", ["main.py"]),
        ("**", ["a.pyc", "src", "src/b.pyc", "src/deep/c.pyc", "src/main.py", "main.py"]),
        (".", ["a.pyc", "src", "src/b.pyc", "src/deep/c.pyc", "src/main.py", "main.py"]),
        ("s**c", ["src", "src/b.pyc", "src/deep/c.pyc", "src/main.py"]),
        ("\\main.py", ["main.py"]),
    ],
)
def test_patterns_hide_what_docker_hides(tmp_path: Path, patterns: str, those_hidden: list[str]) -> None:
    paths = ["a.pyc", "src", "src/b.pyc", "src/deep/c.pyc", "src/main.py", "main.py"]
    assert hidden(tmp_path, patterns, *paths) == those_hidden


def test_the_factorys_own_files_are_hidden_unless_an_exception_names_them(tmp_path: Path) -> None:
    assert hidden(tmp_path, "", "recipe.toml", "base.lock", "x/recipe.toml") == ["recipe.toml", "base.lock"]
    assert hidden(tmp_path, "!recipe.toml", "recipe.toml", "base.lock") == ["base.lock"]


def test_the_file_next_to_the_dockerfile_comes_first(tmp_path: Path) -> None:
    (tmp_path / "dev.Dockerfile.dockerignore").write_text("only-dev")
    assert hidden(tmp_path, "others", "only-dev", "others", name="dev.Dockerfile") == ["only-dev"]
    assert hidden(tmp_path, "others", "only-dev", "others") == ["others"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n[a", ":2: error: the pattern '[a' has a character class without ]; correct it"),
        ("[]a]", ":1: error: the pattern '[]a]' has a wrong character class; correct it"),
        ("a\\", ":1: error: the pattern 'a\\\\' ends with a backslash; correct it"),
        ("a**b**c", ":1: error: the pattern 'a**b**c' has ** twice in one part; correct it"),
        ("a**b/" * 40, " has ** inside of too many parts; correct it"),
        ("*a" * 5000, " has more than 1000 characters between two slashes; correct it"),
        ("x\n" * 600, ": error: the file has too many patterns; write at most 500 patterns of at most 50 parts"),
    ],
)
def test_a_wrong_pattern_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProblemError) as raised:
        hidden(tmp_path, text)
    assert str(raised.value.problem).endswith(message)


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").symlink_to("/etc/passwd")
    with pytest.raises(ProblemError, match=r"\.dockerignore is a link to an absolute path"):
        ignore.read(tmp_path, "Dockerfile")


def test_patterns_take_linear_time() -> None:
    began = time.monotonic()
    assert globs.part("*a" * 200 + "b").match("a" * 5000) is None
    assert time.monotonic() - began < 5  # a backtracking matcher does not end

"""The last step of a Dockerfile recipe, and its part of the input key."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.recipes.dockerfile.build import Settings, inputs, last_step, run_script
from factory.recipes.load import load_recipe
from factory.recipes.model import ProblemError, Recipe

TOML = '[recipe]\nname = "app"\nversion = "1"\nsummary = "s"\n[build]\ndockerfile = "Dockerfile"\n'


def recipe(folder: Path, text: str, files: Mapping[str, str] | None = None, build: str = "") -> Recipe:
    (folder / "app").mkdir(exist_ok=True)
    for name, content in {"recipe.toml": TOML + build, "Dockerfile": text, **(files or {})}.items():
        (folder / "app" / name).write_text(content)
    return load_recipe(folder / "app")


def run(settings: Settings, *arguments: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", run_script(settings), "run", *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout or f"{done.returncode} {done.stderr}"


@pytest.mark.parametrize(
    ("settings", "arguments", "printed"),
    [
        (Settings(("printf", "<%s>"), ("a b", "$HOME", "it's\n%post")), (), "<a b><$HOME><it's\n%post>"),
        (Settings(("printf", "<%s>"), ("a b",)), ("x", "y z"), "<x><y z>"),
        (Settings((), ("echo", "default")), (), "default\n"),
        (Settings((), ("echo", "default")), ("printf", "mine"), "mine"),
        (Settings(("pwd",), (), "/usr"), (), "/usr\n"),
        (Settings(("/bin/sh", "-c", "echo shell form"), ("ignored",)), (), "shell form\n"),
        (Settings(), (), "2 this image has no command: name a program\n"),
    ],
)
def test_run_starts_what_docker_run_starts(settings: Settings, arguments: tuple[str, ...], printed: str) -> None:
    assert run(settings, *arguments) == printed


def test_run_stops_if_the_working_directory_is_missing() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", run_script(Settings(("echo", "x"), (), "/no such folder"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode != 0) == ("", True)


def test_the_last_step_opens_the_files_of_the_user_and_creates_volumes(tmp_path: Path) -> None:
    made = recipe(tmp_path, "FROM scratch\n", build='[run]\nbinds = ["/dataset"]\n')
    text = last_step(made, Settings(user="app:staff", volumes=("/data",)), 86400, has_shell=True).text()
    assert text.startswith("Bootstrap: oci\nFrom: .image\n")
    assert "find / -xdev ! -type l -user app -perm -400 ! -perm -004 -exec chmod o+r {} + || :" in text
    assert "mkdir -p -- /data || :" in text
    assert "mkdir -p -- /dataset || exit" in text
    assert "export SOURCE_DATE_EPOCH=86400" in text
    for nobody in ("", "root", "0", "0:0"):
        assert "-exec chmod" not in last_step(made, Settings(user=nobody), 0, has_shell=True).text()
    assert " -uid 1000 " in last_step(made, Settings(user="1000"), 0, has_shell=True).text()
    assert "%post" not in last_step(made, Settings(user="app"), 0, has_shell=False).text()


def test_the_key_depends_on_the_file_its_arguments_and_what_it_copies(tmp_path: Path) -> None:
    text = "ARG A=1\nFROM debian:12 AS one\nCOPY a /\nFROM debian:12\n"

    def parts(text: str = text, build: str = "", **files: str) -> Mapping[str, str]:
        return inputs(recipe(tmp_path, text, {"a": "1", "other": "1", **files}, build), "amd64")

    first = parts("# hi\n" + text.replace("FROM debian:12\n", "FROM one\n"))
    assert parts("# hi\n" + text.replace("FROM debian:12\n", "FROM one\n"), other="2") == first
    changed = parts("# hi\n" + text.replace("FROM debian:12\n", "FROM one\n"), a="2")
    assert {name for name in first if changed[name] != first[name]} == {"files"}
    unused = parts()  # the target does not need the stage that copies
    assert parts(a="3")["files"] == unused["files"]
    assert parts(build='target = "one"\n')["files"] != unused["files"]
    assert parts(build='args = { A = "2" }\n')["definition"] != unused["definition"]


def test_what_is_refused_has_no_key(tmp_path: Path) -> None:
    made = recipe(tmp_path, "FROM debian:12\nCOPY ../secret /\n")
    with pytest.raises(ProblemError, match=r"Dockerfile:2: COPY: '\.\./secret' leaves the recipe's folder"):
        inputs(made, "amd64")

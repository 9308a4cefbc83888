"""The attacker opens a pull request from a fork. It is built and tested, and nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from factory.report.summary import Row
from tests.attacks.conftest import needs_root
from tests.attacks.test_a_merged_recipe import finished
from tests.factory_project import DEFINITION, TEST, Project

_DIGEST = "sha256:" + "a" * 64
_ROW = asdict(Row("pytorch", "amd64", "tested", "new", "1 passed", 5, 4, 1.5))


@pytest.mark.parametrize(
    "claim",
    [
        {"outcome": "published"},
        {"outcome": "published", "tag": "2.1.2-4", "digest": _DIGEST, "sif_digest": _DIGEST},
        {"tag": "2.1.2-4"},
        {"digest": _DIGEST},
        {"why": "published as 2.1.2-4 " * 1000},
        {"tests": "x" * 501},
        {"seconds": 10**400},
    ],
)
def test_what_a_pull_request_says_of_itself_is_never_shown_as_published(
    project: Project, namespace: str, tmp_path: Path, claim: dict[str, Any]
) -> None:
    handed = tmp_path / "run-report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW | claim]}))
    done = project.run("report", "--from", str(handed), "--registry", namespace)
    assert (done.code, done.out) == (5, "")
    assert "the report cannot be read" in done.err


def test_what_a_pull_request_says_of_itself_is_shown_as_such(project: Project, namespace: str, tmp_path: Path) -> None:
    handed = tmp_path / "run-report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW]}))
    done = project.ok("report", "--from", str(handed), "--registry", namespace)
    assert "_This is what the pull request's own run says of itself. Nothing of it is published._" in done.out


def test_what_a_pull_request_says_of_itself_opens_and_closes_no_issue(project: Project, tmp_path: Path) -> None:
    handed = tmp_path / "run-report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW | {"outcome": "unchanged"}]}))
    done = project.run("report", "--from", str(handed), "--issues")
    assert done.code == 2
    assert "--issues cannot be combined with --from" in done.err


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_report_of_a_pull_request_is_an_ordinary_file(project: Project, tmp_path: Path, kind: str) -> None:
    real, handed = tmp_path / "real.json", tmp_path / "run-report.json"
    real.write_text(json.dumps({"format": 1, "rows": [_ROW]}))
    if kind == "link":
        handed.symlink_to(real)
    else:
        os.mkfifo(handed)
    done = project.run("report", "--from", str(handed))
    assert done.code == 5
    assert "not a regular file" in done.err


SECONDS = 15.0  # on a slow machine; most of it is none of ours


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10_000_000_000)


def _device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero


PLANTED: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to an endless file": lambda path: path.symlink_to("/dev/zero"),
    "ten gigabytes": _sparse,
}


@pytest.mark.parametrize("kind", [*PLANTED, pytest.param("a device", marks=needs_root)])
@pytest.mark.parametrize("name", ["recipe.toml", "image.def", "base.lock", "files/app", "files/requirements.txt"])
def test_no_file_of_a_recipe_is_waited_for_or_read_for_ever(project: Project, name: str, kind: str) -> None:
    install = "\n%files\n    files/app /app\n    files/requirements.txt /r.txt\n%post\n    pip install -r /r.txt\n"
    folder = project.recipe("odd", definition="Bootstrap: docker\nFrom: {{ base }}\n" + install)
    (folder / "files").mkdir()
    for file in ("app", "requirements.txt"):
        (folder / "files" / file).write_text("numpy==1.0\n")
    path = folder / name
    path.unlink(missing_ok=True)
    (PLANTED.get(kind) or _device)(path)
    fine = name.startswith("files/") and kind in ("a folder", "ten gigabytes")
    for command in (["lint"], ["lint", "--json"], *([] if fine else [["plan"]])):  # plan hashes what goes into images
        started = time.monotonic()
        done = finished(project, *command)
        assert time.monotonic() - started < SECONDS
        assert done.code == (0 if fine else 2), done.out + done.err
    if not fine:
        assert name in finished(project, "lint").out


HUGE = {
    "dotted keys": "a." * 550_000 + "a = 1\n",
    "dotted keys within a limit": "a." * 120_000 + "a = 1\n",
    "quoted keys": '"a".' * 60_000 + "a = 1\n",
    "dotted headers": "[" + "a." * 120_000 + "a]\n",
    "keys in a table": "x = {" + "a." * 120_000 + "a = 1}\n",
    "many keys": "".join(f"k{number} = 1\n" for number in range(22_000)),
    "many tests": "[[test]]\n" * 27_000,
    "many arguments": "[build.args]\n" + "".join(f"k{number} = 'x'\n" for number in range(15_000)),
    "brackets": "x = " + "[" * 240_000 + "\n",
    "a long number": "[build]\ntimeout = " + "9" * 5000 + "\n",
    "open strings": 'x = """' + '\\"""' * 60_000,
    "a deep expression": "[[test]]\nname = 'x'\nrun = 'x'\nstdout_regex = '" + "(" * 100_000 + "'\n",
    "a repeated expression": "[[test]]\nname = 'x'\nrun = 'x'\nstdout_regex = 'a{99999999999999999999}'\n",
    "nested counts": "[[test]]\nname = 'x'\nrun = 'x'\nstdout_regex = '((a{1,1000}){1,1000}){1,1000}"
    + "?" * 5000
    + "'\n",
}


@pytest.mark.parametrize("kind", HUGE)
def test_no_recipe_toml_takes_minutes_to_read(project: Project, kind: str) -> None:
    (project.recipe("huge") / "recipe.toml").write_text(HUGE[kind])
    started = time.monotonic()
    done = finished(project, "lint")
    assert time.monotonic() - started < SECONDS
    assert done.code == 2
    assert "recipes/huge/recipe.toml" in done.out
    assert len(done.out) < 100_000


BASE = "Bootstrap: docker\nFrom: {{ base }}\n"
LONG = {
    "headers": BASE + "x:\n" * 80_000,
    "sections": BASE + "%x\n" * 80_000,
    "stages": "Bootstrap: docker\n" * 14_000,
    "words to copy": BASE + "%files\n" + "a " * 120_000 + "\n",
    "things to copy": BASE + "%files\n" + "files/0/0 /x\n" * 19_000,
    "continued lines": BASE + "%post\n" + "\\\n" * 120_000,
    "lost files": BASE + "%post\n" + "cp a /tmp/x\n" * 20_000,
    "removed files": BASE + "%post\n" + "cp a /tmp/x\n" * 10_000 + "rm /tmp/y\n" * 10_000,
    "a long path": BASE + "%post\n cp a /tmp" + "/x" * 120_000 + "\n rm y\n",
    "templates in a comment": BASE + "%post\n# " + "{{ a }}" * 35_000 + "\n",
    "open templates": BASE + "%post\n" + "{{ " * 80_000 + "\n",
    "values of values": BASE
    + "%arguments\na="
    + "{{b}}" * 20_000
    + "\nb="
    + "x" * 100_000
    + "\n%post\n"
    + "{{a}}\n" * 5_000,
    "values in many lines": BASE + "%arguments\nb=" + "x" * 60_000 + "\n%post\n" + "{{b}}\n" * 30_000,
    "links to copy": BASE + "%files\n    files/0 /x\n",
    "patterns to copy": BASE + "%files\n    files" + "/*" * 40 + "/nothing /x\n",
    "an option": BASE + "%post\n apt-get update\n apt-get install -" + "y" * 240_000 + "!\n",
    "one word": BASE + "%" + "post" * 60_000 + "\n",
}


@pytest.mark.parametrize("kind", LONG)
def test_no_definition_takes_minutes_or_gigabytes_to_check(project: Project, kind: str) -> None:
    folder = project.recipe("long", definition=LONG[kind])
    for number in range(40):  # two links each to the next folder: 2^40 paths
        (folder / f"files/{number}").mkdir(parents=True)
        for link in "ab":
            (folder / f"files/{number}/{link}").symlink_to(f"../{number + 1}")
    (folder / "files/40").mkdir()
    started = time.monotonic()
    done = finished(project, "lint")
    assert time.monotonic() - started < 2 * SECONDS
    assert len(done.out) < 100_000
    assert finished(project, "plan").code in (0, 2)


@pytest.mark.parametrize("name", ["image.def", "recipe.toml", "base.lock"])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../home/netrc"])
def test_no_file_of_the_machine_is_shown_where_a_recipes_file_should_be(
    project: Project, name: str, target: str
) -> None:
    (project.folder / "home/netrc").write_text("machine login\n")
    path = project.recipe("shown") / name
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    for command in (["lint"], ["plan"], ["build", "shown"]):
        done = project.run(*command)
        assert "root:" not in done.out + done.err
        assert "machine" not in done.out + done.err
    assert project.run("lint").code == 2


@pytest.mark.parametrize("definition", ["../../home/netrc", "sub/image.def"])
def test_no_file_of_the_machine_is_read_as_a_definition_of_another_name(project: Project, definition: str) -> None:
    (project.folder / "home/netrc").write_text("machine login\n")
    folder = project.recipe("named")
    (folder / "image.def").unlink()
    (folder / "image.def").symlink_to("../../home/netrc")
    (folder / "sub").symlink_to("../../home")
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("[build]", f'[build]\ndefinition = "{definition}"'))
    done = project.run("lint")
    assert done.code == 2
    assert "machine" not in done.out + done.err


NAMES = [b"\x1b]0;owned\x07", b"a\nrecipes b image.def:1: error: x", b"\xff\xfe", "\u202egnp".encode(), b"a\r\x1b[2K"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_file_steers_a_terminal_or_adds_a_line(project: Project, name: bytes) -> None:
    said = os.fsdecode(name)
    (project.folder / "recipes" / said).mkdir()
    folder = project.recipe("one", definition=DEFINITION + "\n%files\n    files /x\n    fil* /y\n", more=TEST)
    (folder / "files" / said).mkdir(parents=True)
    (folder / "files" / said / said).symlink_to("/etc/passwd")
    (folder / said).symlink_to("/etc/passwd")
    for command in ("lint", "plan", "build", "test"):
        done = project.run(command, *(["one"] if command in ("build", "test") else []))
        shown = done.out + done.err
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown), ascii(shown)
        assert not any(line.startswith("recipes b") for line in shown.splitlines())
    assert project.run("lint", GITHUB_ACTIONS="true").out.count("\n::error ") <= 8
    found = json.loads(project.run("lint", "--json").out)
    assert all("\n" not in problem["message"] + problem["remedy"] for problem in found)

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.cli.main import main

RECIPE = """
[recipe]
name = "one"
version = "1"
summary = "s"
license = "MIT"
maintainers = ["@a"]
[build]
base = "docker://debian:12"
[[test]]
name = "starts"
run = "true"
"""
DEFINITION = "Bootstrap: docker\nFrom: {{ base }}\n%post\n    cd $(mktemp -d)\n    dnf install gcc\n%setup\n    true\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes/one"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "image.def").write_text(DEFINITION)
    (tmp_path / "factory.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path


def test_problems_of_all_checks_are_printed_by_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.rpartition(": ")[0].rpartition(": ")[0] for line in lines][:3] == [
        "recipes/one/image.def:4",
        "recipes/one/image.def:5",
        "recipes/one/image.def:6",
    ]


def test_sarif_and_json_name_the_check_of_each_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--sarif"]) == 2
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert main(["lint", "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert [one["ruleId"] for one in run["results"]] == [row["rule"] for row in rows]
    assert {"SC2046", "asks", "host", "pins"} <= {row["rule"] for row in rows}
    assert {"warning", "error"} == {row["level"] for row in rows}

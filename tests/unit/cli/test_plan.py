from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.cli import settings
from factory.cli.main import main
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog
from tests.unit.github.test_commands import Runner
from tests.unit.parts import ENGINE, QUIET, folder_registry, release_of, write_recipe

ENTRY = {
    "recipe": "tool",
    "arch": "amd64",
    "title": "tool (amd64)",
    "candidate": "tool-amd64",
    "bases": "",
    "runner": "ubuntu-24.04",
    "large": False,
}
UPON = ENTRY | {"recipe": "upon", "title": "upon (amd64)", "candidate": "upon-amd64", "bases": "tool-amd64"}
STUCK = "Bootstrap: docker\nFrom: {{ nothing }}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty factory, a home and an environment of our own; signal handlers are given back."""
    for name in [name for name in os.environ if name.startswith(("SINGFACTORY", "XDG_", "GITHUB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "factory.toml").write_text("")
    monkeypatch.chdir(folder)
    engine = tmp_path / "apptainer"
    engine.write_text(f'#!/bin/sh\necho "{ENGINE.replace(" ", " version ")}"\n')
    engine.chmod(0o755)
    monkeypatch.setenv("SINGFACTORY_ENGINE", str(engine))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield folder
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a step of GitHub Actions answers through."""
    path = tmp_path / "outputs"
    path.touch()
    monkeypatch.setenv("GITHUB_OUTPUT", str(path))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return path


def read_outputs(path: Path) -> dict[str, str]:
    """As the runner reads it: name<<DELIMITER, lines, DELIMITER."""
    found = re.findall(r"^([a-z0-9]+)<<(.+)\n((?:.*\n)*?)\2\n", path.read_text(), re.MULTILINE)
    return {name: value.removesuffix("\n") for name, _, value in found}


def planned(capsys: pytest.CaptureFixture[str], *names: str, code: int = 0) -> list[list[dict[str, Any]]]:
    """The waves as entries."""
    assert main(["plan", "--github-matrix", *names]) == code
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["waves"]
    return [wave["include"] for wave in document["waves"]]


def test_the_matrix_has_an_entry_for_each_job_in_waves(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(project / "recipes", "tool", build='arch = ["amd64", "arm64"]')
    write_recipe(project / "recipes", "upon", base="recipe://tool")
    arm: dict[str, object] = {
        "title": "tool (arm64)",
        "arch": "arm64",
        "runner": "ubuntu-24.04-arm",
        "candidate": "tool-arm64",
    }
    arm = ENTRY | arm
    assert planned(capsys) == [[ENTRY, arm], [UPON]]
    assert planned(capsys, "tool") == [[ENTRY, arm]]


def test_published_recipes_are_not_in_the_matrix(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(project / "recipes")
    catalog = Catalog()
    catalog = catalog.with_entry(catalog.entry("tool").with_release(release_of(recipe)))
    catalogs.write(folder_registry(project / ".singfactory/registry"), catalog, QUIET)
    assert planned(capsys) == []
    assert read_outputs(outputs) == {"wave0": "", "wave1": "", "wave2": "", "wave3": "", "count": "0"}


def test_runners_come_from_the_settings(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "factory.toml").write_text('github_runner_amd64 = "a"\ngithub_runner_large = "big"\n')
    monkeypatch.setenv("SINGFACTORY_GITHUB_RUNNER_ARM64", "b")
    write_recipe(project / "recipes", "large", build='disk = "15GB"')
    write_recipe(project / "recipes", "tool", build='disk = "14GB"\narch = ["amd64", "arm64"]')
    found = [(entry["title"], entry["runner"], entry["large"]) for entry in planned(capsys)[0]]
    assert found == [("large (amd64)", "big", True), ("tool (amd64)", "a", False), ("tool (arm64)", "b", False)]


def test_in_github_actions_each_wave_is_an_output(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project / "recipes")
    write_recipe(project / "recipes", "upon", base="recipe://tool")
    waves = planned(capsys)
    told = read_outputs(outputs)
    assert [json.loads(told[f"wave{number}"])["include"] for number in (0, 1)] == waves
    assert (told["wave2"], told["wave3"], told["count"]) == ("", "", "2")


def test_a_stuck_recipe_is_an_annotation_and_does_not_stop_the_others(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project / "recipes")
    write_recipe(project / "recipes", "bad", definition=STUCK)
    assert main(["plan", "--github-matrix"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"waves": [{"include": [ENTRY]}]}
    assert read_outputs(outputs)["count"] == "1"
    assert "\n::error file=recipes/bad/image.def,line=2::bad (amd64)%0A" in err
    ((name, line),) = Runner().read(err).obeyed
    assert name == "error"
    assert "the argument 'nothing' is not defined%0A" in line


def test_a_recipe_stuck_for_another_reason_is_annotated_at_its_recipe_file(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project / "recipes", build='arch = ["arm64"]')
    write_recipe(project / "recipes", "upon", base="recipe://tool")
    assert main(["plan", "--github-matrix"]) == 2
    err = capsys.readouterr().err
    assert "\n::error file=recipes/upon/recipe.toml::upon (amd64)%0A" in err
    assert Runner().read(err).obeyed == [
        (
            "error",
            (
                "upon (amd64)%0Aupon is based on tool, which is not published for amd64%0Asingfactory make tool upon"
                "; if it is published but private, log in"
            ),
        )
    ]
    assert read_outputs(outputs)["count"] == "1"


def test_outside_github_a_stuck_recipe_is_reported_on_stderr(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(project / "recipes")
    write_recipe(project / "recipes", "bad", definition=STUCK)
    assert main(["plan", "--github-matrix"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"waves": [{"include": [ENTRY]}]}
    assert err.startswith("singfactory: ")
    assert "image.def:2: the argument 'nothing' is not defined" in err


def test_a_chain_that_is_too_deep_for_the_workflow_is_an_error_that_names_it(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project / "recipes", "r0")
    for number in range(1, 5):
        write_recipe(project / "recipes", f"r{number}", base=f"recipe://r{number - 1}")
    assert main(["plan", "--github-matrix"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "r0 -> r1 -> r2 -> r3 -> r4" in err
    assert outputs.read_text() == ""
    assert main(["plan"]) == 0


TORN = "[recipe]\nname = \n"


def test_a_broken_recipe_stops_only_recipes_based_on_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(project / "recipes", "tool")
    write_recipe(project / "recipes", "upon", base="recipe://torn")
    torn = write_recipe(project / "recipes", "torn").folder / "recipe.toml"
    torn.write_text(TORN)
    assert planned(capsys, code=2) == [[ENTRY]]
    assert main(["plan"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "build  tool (amd64): new: nothing is published"
    assert told[1].startswith(f"stuck  torn (amd64): {torn}:2: not TOML")
    assert told[2:4] == [
        "       see https://toml.io for the format",
        "stuck  upon (amd64): upon is based on torn, which is broken",
    ]
    assert main(["plan", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [(row["recipe"], row["fix"]) for row in document["stuck"]] == [
        ("torn", "see https://toml.io for the format"),
        ("upon", "see https://toml.io for the format"),
    ]
    assert [row["recipe"] for row in document["build"]] == ["tool"]


@pytest.mark.parametrize("name", ["torn", "upon"])
def test_a_broken_recipe_that_was_named_is_an_error(
    project: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_recipe(project / "recipes", "upon", base="recipe://torn")
    (write_recipe(project / "recipes", "torn").folder / "recipe.toml").write_text(TORN)
    assert main(["plan", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "torn/recipe.toml:2: not TOML" in err


def test_a_job_annotates_the_line_of_a_broken_recipe_and_continues(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project / "recipes", "tool")
    (write_recipe(project / "recipes", "torn").folder / "recipe.toml").write_text(TORN)
    assert main(["plan", "--github-matrix"]) == 2
    assert read_outputs(outputs)["count"] == "1"
    assert "::error file=recipes/torn/recipe.toml,line=2::torn (amd64)%0A" in capsys.readouterr().err


def test_make_continues_with_the_other_recipes_and_returns_the_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(project / "recipes")
    catalog = Catalog()
    catalog = catalog.with_entry(catalog.entry("tool").with_release(release_of(recipe)))
    catalogs.write(folder_registry(project / ".singfactory/registry"), catalog, QUIET)
    (write_recipe(project / "recipes", "torn").folder / "recipe.toml").write_text(TORN)
    assert main(["make"]) == 2
    out, err = capsys.readouterr()
    assert out == "unchanged  tool (amd64): 1.0-1 has these inputs\n"
    assert "torn/recipe.toml:2: not TOML" in err


def test_jobs_that_do_not_fit_into_a_matrix_are_a_warning(
    project: Path, outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.plan.waves.MOST_ENTRIES", 1)
    for number in range(6):
        write_recipe(project / "recipes", f"r{number}")
    assert [len(wave) for wave in planned(capsys)] == [1, 1, 1, 1]
    assert main(["plan", "--github-matrix"]) == 0
    ((name, text),) = Runner().read(capsys.readouterr().err).obeyed
    assert name == "warning"
    assert text == "2 jobs wait for the next run, because GitHub allows 1 per matrix: r4 (amd64), r5 (amd64)"
    assert read_outputs(outputs)["count"] == "4"


@pytest.mark.parametrize("name", ["--registry=http://evil.example/x", "-q", "../x", "a b", "a\n::set-output name=x::1"])
@pytest.mark.parametrize("command", [["plan"], ["report"], ["build"], ["test"], ["publish"], ["lint"], ["rebuild"]])
def test_words_after_two_dashes_are_recipe_names(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str], name: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    write_recipe(project / "recipes")
    assert main([*command, "--", "tool", name]) == 2
    out, err = capsys.readouterr()
    assert "not a recipe name" in err
    assert Runner().read(out + err).obeyed == []

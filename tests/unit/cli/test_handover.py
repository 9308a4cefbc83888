from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.main import main
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.candidate import Candidate
from factory.records.catalog import Catalog
from factory.records.report import TestResult
from factory.registry.layout import LayoutRegistry
from tests.unit.parts import QUIET, candidate, folder_registry, report_of, write_recipe


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty factory, a home and an environment of our own, no engine; signal handlers are given back."""
    for name in [name for name in os.environ if name.startswith(("SINGFACTORY", "XDG_", "GITHUB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SINGFACTORY_ENGINE", str(tmp_path / "none"))
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "factory.toml").write_text("")
    monkeypatch.chdir(folder)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield folder
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def registry(project: Path) -> LayoutRegistry:
    return folder_registry(project / ".singfactory/registry")


def recipe(project: Path, name: str, **parts: str) -> Recipe:
    return write_recipe(project / "recipes", name, **parts)  # type: ignore[arg-type]


def built(
    project: Path,
    of: Recipe,
    *results: TestResult,
    base: Candidate | None = None,
    arch: str = "amd64",
    more: bytes = b"",
) -> Candidate:
    """A candidate of this recipe in the work folder, and its report."""
    where = project / ".singfactory/candidates"
    content = f"the image of {of.name} for {arch}".encode() + more
    upon = {"base": str(base.sif.digest)} if base is not None else {}
    made = candidate(where, of, content, arch=arch, **upon)
    report_of(made, *results).save(made.folder)
    return made


def published(registry: LayoutRegistry) -> dict[str, list[str]]:
    """The build tags of each recipe in the catalog."""
    return {name: [str(one.tag) for one in entry.releases] for name, entry in catalogs.read(registry).entries.items()}


def test_every_candidate_is_published_bases_first(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    base = built(project, recipe(project, "z-base"))
    top = built(project, recipe(project, "a-top", base="recipe://z-base"), base=base)
    assert main(["publish", "--all"]) == 0
    releases = [catalogs.read(registry).entry(name).releases[0] for name in ("z-base", "a-top")]
    where = f"oci:{project}/.singfactory/registry"
    assert capsys.readouterr().out.splitlines() == [
        f"{where}/{release.recipe}:1.0-1@{release.digest} sif {made.sif.digest}"
        for release, made in zip(releases, (base, top), strict=True)
    ]
    assert releases[1].parts["base"] == str(base.sif.digest)


def test_all_architectures_of_a_recipe_are_published_under_one_number(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    both = recipe(project, "tool", build='arch = ["amd64", "arm64"]')
    made = [built(project, both, arch=arch) for arch in ("amd64", "arm64")]
    assert main(["publish", "--all"]) == 0
    entry = catalogs.read(registry).entry("tool")
    assert [(str(one.tag), one.arch) for one in entry.releases] == [("1.0-1", "amd64"), ("1.0-1", "arm64")]
    assert registry.tags("tool") == ["1.0", "1.0-1", "latest"]
    where = f"oci:{project}/.singfactory/registry/tool:1.0-1"
    assert capsys.readouterr().out.splitlines() == [
        f"{where}@{release.digest} sif {one.sif.digest}" for release, one in zip(entry.releases, made, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["a flipped byte", "untested", "a failed test", "the base"])
def test_an_architecture_that_cannot_be_published_keeps_its_old_image_and_the_others_are_published(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    base = built(project, recipe(project, "base"))
    table = {"build": 'arch = ["amd64", "arm64"]', "base": "recipe://base"}
    tool = recipe(project, "tool", **table)
    for arch in ("amd64", "arm64"):
        built(project, tool, base=base, arch=arch)
    assert main(["publish", "--all"]) == 0
    first = {one.arch: one for one in catalogs.read(registry).entry("tool").releases}
    tool = recipe(project, "tool", **table, summary="a better tool")
    made = {arch: built(project, tool, base=base, arch=arch, more=b"again") for arch in ("amd64", "arm64")}
    if trouble == "the base":
        built(project, tool, base=replace(base, sif=made["amd64"].sif), arch="arm64", more=b"again")
    else:
        TROUBLES[trouble][0](made["arm64"])
    capsys.readouterr()
    assert main(["publish", "--all", "--json"]) == (6 if trouble == "the base" else TROUBLES[trouble][1])
    rows = {row["folder"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["tool-amd64"]["tag"], rows["tool-amd64"]["error"]) == ("1.0-2", None)
    assert rows["tool-arm64"]["error"]
    now = {one.arch: one for one in catalogs.read(registry).entry("tool").releases if str(one.tag) == "1.0-2"}
    assert now["amd64"].sif == made["amd64"].sif
    assert now["arm64"] == replace(first["arm64"], tag=now["amd64"].tag)


def flip(made: Candidate) -> None:
    content = bytearray(made.image.read_bytes())
    content[5] ^= 1
    made.image.write_bytes(content)


def swap(made: Candidate) -> None:
    made.image.write_bytes((made.folder.with_name("good-amd64") / "image.sif").read_bytes())


def swap_report(made: Candidate) -> None:
    report = made.folder.with_name("good-amd64") / "report.json"
    (made.folder / "report.json").write_bytes(report.read_bytes())


def edit_recipe(made: Candidate) -> None:
    write_recipe(made.folder.parents[2] / "recipes", made.recipe, version="2.0")


def drop_recipe(made: Candidate) -> None:
    folder = made.folder.parents[2] / "recipes" / made.recipe
    folder.rename(folder.parents[1] / "gone")


def fail_test(made: Candidate) -> None:
    report_of(made, TestResult("starts", "failed", 0.1, "exit 1")).save(made.folder)


def other_arch(made: Candidate) -> None:
    replace(made, arch="arm64").save()


TROUBLES: dict[str, tuple[Callable[[Candidate], object], int, str]] = {
    "a flipped byte": (flip, 5, "bad-amd64/image.sif is not the image that was built"),
    "another's image": (swap, 5, "bad-amd64/image.sif is not the image that was built"),
    "another's report": (swap_report, 5, "bad-amd64 is for another recipe"),
    "untested": (lambda made: (made.folder / "report.json").unlink(), 3, "bad has not been tested"),
    "a failed test": (fail_test, 7, "bad is not published"),
    "an edited recipe": (edit_recipe, 2, "bad was changed after it was built"),
    "a recipe that is gone": (drop_recipe, 3, "no recipe bad in"),
    "a broken record": (lambda made: (made.folder / "candidate.json").write_text("{"), 5, "is broken"),
    "no record beside an image": (lambda made: (made.folder / "candidate.json").unlink(), 3, "has not been built"),
    "the record of another": (other_arch, 5, "bad-amd64 has the candidate of another recipe"),
    "a link": (lambda made: made.folder.with_name("link-amd64").symlink_to(made.folder), 2, "'link-amd64' is no"),
    "a file": (lambda made: made.folder.with_name("file").touch(), 2, "'file' is not a candidate"),
    "no name": (
        lambda made: made.folder.rename(made.folder.with_name("-rf-amd64")),
        2,
        "'-rf-amd64' is not a candidate",
    ),
    "control": (lambda made: made.folder.rename(made.folder.with_name("a\n::x-amd64")), 2, r"'a\n::x-amd64' is no"),
    "machine": (lambda made: made.folder.rename(made.folder.with_name("bad-vax")), 2, "'bad-vax' is not a candidate"),
    "the catalog": (
        lambda made: made.folder.rename(made.folder.with_name("catalog-amd64")),
        2,
        "'catalog-amd64' is no",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_candidate_that_cannot_be_published_is_reported_and_does_not_stop_the_others(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    bad, good = recipe(project, "bad"), recipe(project, "good")
    act, code, message = TROUBLES[trouble]
    made = built(project, bad)
    built(project, good)
    act(made)
    assert main(["publish", "--all"]) == code
    out, err = capsys.readouterr()
    assert f"/good:1.0-1@{catalogs.read(registry).entry('good').releases[0].digest}" in out
    assert message in err
    assert published(registry).keys() - {"bad"} == {"good"}
    assert ("bad" in published(registry)) is (trouble in ("a link", "a file"))
    assert registry.tags("bad") == [] or "bad" in published(registry)


def test_every_failure_is_reported_and_the_first_sets_the_exit_code(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = built(project, recipe(project, "one")), built(project, recipe(project, "two"))
    built(project, recipe(project, "three"))
    flip(one)
    fail_test(two)
    assert main(["publish", "--all", "--json"]) == 5
    out, err = capsys.readouterr()
    rows = {row["folder"]: row for row in json.loads(out)}
    assert {name: (row["recipe"], row["arch"], bool(row["error"])) for name, row in rows.items()} == {
        "one-amd64": ("one", "amd64", True),
        "three-amd64": ("three", "amd64", False),
        "two-amd64": ("two", "amd64", True),
    }
    assert rows["three-amd64"]["tag"] == "1.0-1"
    assert [line for line in err.splitlines() if line.startswith("singfactory: ")] == [
        f"singfactory: {one.image} is not the image that was built",
        "singfactory: two is not published",
    ]


def test_an_image_is_not_published_if_its_base_is_not(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    base = built(project, recipe(project, "base"), TestResult("starts", "failed", 0.1, "exit 1"))
    built(project, recipe(project, "top", base="recipe://base"), base=base)
    assert main(["publish", "--all"]) == 7
    assert "top (amd64) is not published\n  it is based on an image of base" in capsys.readouterr().err
    assert published(registry) == {}
    report_of(base).save(base.folder)
    assert main(["publish", "--all"]) == 0
    assert published(registry) == {"base": ["1.0-1"], "top": ["1.0-1"]}


def test_artifacts_of_an_earlier_attempt_are_ignored(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of a second attempt no longer names what the first one has published."""
    for name in ("first", "second"):
        built(project, recipe(project, name))
    plan = project / "plan.json"
    plan.write_text(json.dumps({"include": [{"recipe": "second", "arch": "amd64"}]}))
    assert main(["publish", "--all", "--plan", str(plan)]) == 5
    assert "the artifact 'first-amd64' belongs to no job of the plan" in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "2")
    assert main(["publish", "--all", "--plan", str(plan)]) == 0
    assert "first-amd64 is ignored" in capsys.readouterr().err
    assert published(registry) == {"second": ["1.0-1"]}


def test_publishing_again_changes_nothing_and_prints_the_same(
    project: Path, registry: LayoutRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    built(project, recipe(project, "tool"))
    assert main(["publish", "--all"]) == 0
    first, before = capsys.readouterr().out, catalogs.read(registry)
    assert main(["publish", "--all"]) == 0
    assert (capsys.readouterr().out, catalogs.read(registry)) == (first, before)


def test_locks_and_remains_of_failed_builds_are_not_candidates(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(project, "tool")
    where = project / ".singfactory/candidates"
    (where / ".locks").mkdir(parents=True)
    (where / "tool-amd64").mkdir()
    (where / "tool-amd64/build.log").write_text("it failed")
    assert main(["publish", "--all"]) == 0
    assert capsys.readouterr() == ("", f"tool (amd64) was not built; {where}/tool-amd64 contains no image\n")


def test_a_factory_without_candidates_publishes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe(project, "tool")
    assert main(["publish", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_release_of_a_run_that_died_is_added_to_the_catalog_without_its_candidate(
    project: Path, registry: LayoutRegistry
) -> None:
    made = built(project, recipe(project, "tool"))
    assert main(["publish", "--all"]) == 0
    whole = catalogs.read(registry)
    catalogs.write(registry, Catalog(), QUIET)
    made.folder.rename(project / "gone")
    assert main(["publish", "--all"]) == 0
    assert catalogs.read(registry) == whole


def test_changed_recipe_metadata_reaches_the_catalog_without_a_build(project: Path, registry: LayoutRegistry) -> None:
    built(project, recipe(project, "tool"))
    assert main(["publish", "--all"]) == 0
    recipe(project, "tool", summary="other words", more='[lifecycle]\nstatus = "withdrawn"')
    made = project / ".singfactory/candidates/tool-amd64"
    made.rename(project / "gone")
    assert main(["publish", "--all"]) == 0
    entry = catalogs.read(registry).entry("tool")
    assert (entry.summary, entry.status, len(entry.releases)) == ("other words", "withdrawn", 1)


@pytest.mark.parametrize("arguments", [[], ["tool", "--all"]])
def test_publish_needs_either_names_or_all(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["publish", *arguments]) == 2
    assert capsys.readouterr().err.startswith("singfactory: publish takes either names or --all\n")


COUNTING = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from factory.cli import main
code = main(["publish", "--all"])
print(code, sum(path.endswith("data.txt") for path in opened))
"""


@pytest.mark.slow
def test_each_file_of_a_recipe_is_read_once(project: Path, registry: LayoutRegistry) -> None:
    definition = "Bootstrap: docker\nFrom: {{ base }}\n%files\n    data.txt /data.txt\n"
    built(project, write_recipe(project / "recipes", definition=definition, files={"data.txt": "1"}))
    done = subprocess.run([sys.executable, "-c", COUNTING], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 1"
    assert published(registry) == {"tool": ["1.0-1"]}

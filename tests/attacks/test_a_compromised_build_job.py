"""The attacker owns a job that builds. What it hands over may be anything; it counts for that job's recipe only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from factory.recipes.model import Recipe
from factory.records.candidate import Candidate
from factory.records.report import TestResult
from tests.factory_project import Done, Project
from tests.unit.parts import candidate, report_of, write_recipe

_EVIL = b"the attacker's image"


@dataclass(frozen=True)
class Handover:
    """The job that publishes: the recipes of main, and what other jobs have handed over."""

    project: Project
    registry: str
    work: Path

    @property
    def candidates(self) -> Path:
        return self.work / "candidates"

    def recipe(self, name: str, **more: Any) -> Recipe:
        return write_recipe(self.project.folder / "recipes", name, **more)

    def handed(self, recipe: Recipe, content: bytes = b"", **more: Any) -> Candidate:
        """What an honest job hands over."""
        made = candidate(self.candidates, recipe, content or f"the image of {recipe.name}".encode(), **more)
        report_of(made).save(made.folder)
        return made

    def run(self, *arguments: str) -> Done:
        engine = {"SINGFACTORY_ENGINE": "none here"}
        return self.project.run(
            *arguments, SINGFACTORY_WORK=str(self.work), SINGFACTORY_REGISTRY=self.registry, **engine
        )

    def planned(self, *names: str) -> list[str]:
        """The options of the workflow, for a plan of these recipes."""
        file = self.project.folder / "plan.json"
        file.write_text(json.dumps({"include": [{"recipe": name, "arch": "amd64"} for name in names]}))
        return ["--plan", str(file)]

    def published(self) -> dict[str, str]:
        """The SIF digest of the newest release of each recipe in the catalog."""
        found = {}
        for row in self.run("list", "--json").json():
            name = row["name"]
            found[name] = self.run("show", name, "--json").json()["sif_digest"]
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the report, by recipe."""
        found = json.loads((self.work / "run-report.json").read_text())["rows"]
        return {row["recipe"]: row for row in found}


@pytest.fixture
def handover(project: Project, namespace: str, tmp_path: Path) -> Handover:
    return Handover(project, namespace, tmp_path / "work")


def test_a_job_cannot_publish_the_image_of_a_recipe_that_is_not_planned(handover: Handover) -> None:
    good, bad = handover.recipe("good"), handover.recipe("bad")
    handover.handed(good)
    assert handover.run("publish", "--all", *handover.planned("good")).code == 0
    before = handover.published()
    shutil.rmtree(handover.candidates)
    handover.handed(good, _EVIL)  # which the job of bad handed over, under a name of its choice
    mine = handover.handed(bad)
    done = handover.run("publish", "--all", *handover.planned("bad"))
    assert done.code == 5
    assert "the artifact 'good-amd64' belongs to no job of the plan" in done.err
    assert handover.published() == before | {"bad": str(mine.sif.digest)}
    handover.run("report", *handover.planned("bad"))
    assert {name: row["outcome"] for name, row in handover.rows().items()} == {"bad": "published", "good": "unchanged"}


def test_a_job_cannot_hide_the_image_of_another_recipe_beside_its_own(handover: Handover) -> None:
    good, bad, other = (handover.recipe(name) for name in ("good", "bad", "other"))
    mine, theirs = handover.handed(bad), handover.handed(other)
    forged = handover.handed(good, _EVIL)
    shutil.move(forged.folder, mine.folder / "good-amd64")
    done = handover.run("publish", "--all", *handover.planned("bad", "good", "other"))
    assert done.code == 5
    assert "the artifact of the job bad (amd64) has a file that no build writes: 'good-amd64'" in done.err
    assert handover.published() == {"other": str(theirs.sif.digest)}
    handover.run("report", *handover.planned("bad", "good", "other"))
    assert {name: row["outcome"] for name, row in handover.rows().items()} == {
        "bad": "not built",
        "good": "not built",
        "other": "published",
    }
    assert "good-amd64" in handover.rows()["bad"]["why"]


def test_a_job_says_nothing_about_another_recipe_in_the_report(handover: Handover) -> None:
    good, bad = handover.recipe("good"), handover.recipe("bad")
    mine = handover.handed(bad)
    shutil.copytree(handover.handed(good, _EVIL).folder, mine.folder, dirs_exist_ok=True)
    shutil.rmtree(handover.candidates / "good-amd64")
    assert handover.run("publish", "--all", *handover.planned("bad", "good")).code == 5
    handover.run("report", *handover.planned("bad", "good"))
    assert {name: row["outcome"] for name, row in handover.rows().items()} == {"bad": "not built", "good": "not built"}
    assert "another recipe" in handover.rows()["bad"]["why"]


def test_a_job_cannot_hand_over_the_test_report_of_another_recipe_or_tests_that_nobody_wrote(
    handover: Handover,
) -> None:
    first, second, third = (handover.recipe(name) for name in ("first", "second", "third"))
    made = [handover.handed(recipe, b"the same bytes") for recipe in (first, second)]
    shutil.copy(made[0].folder / "report.json", made[1].folder / "report.json")
    many = [TestResult(f"t{number}", "untested", 0.0, "x" * 900) for number in range(1000)]
    loud = handover.handed(third)
    report_of(loud, TestResult("starts", "passed", 0.1), *many).save(loud.folder)
    done = handover.run("publish", "--all", *handover.planned("first", "second", "third"))
    assert done.code == 5
    assert "is for another recipe" in done.err
    assert "contains tests that its recipe does not have" in done.err
    assert len(done.err) < 2000
    assert set(handover.published()) == {"first"}


def _record(made: Candidate, **values: Any) -> None:
    path = made.folder / "candidate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _text(made: Candidate, old: str, new: str, file: str = "candidate.json") -> None:
    path = made.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _report(made: Candidate, **values: Any) -> None:
    path = made.folder / "report.json"
    whole = json.loads(path.read_text())
    whole["tests"][0] |= values
    path.write_text(json.dumps(whole))


def _instead(made: Candidate, file: str, make: Callable[[Path], object]) -> None:
    path = made.folder / file
    path.unlink(missing_ok=True)
    make(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


MALFORMED: dict[str, Callable[[Candidate], object]] = {
    "size-inf": lambda made: _text(made, f'"size": {made.sif.size}', '"size": 1e999'),
    "size-text": lambda made: _record(made, size="5"),
    "size-bool": lambda made: _record(made, size=True),
    "size-negative": lambda made: _record(made, size=-1),
    "size-huge": lambda made: _record(made, size=10**30),
    "size-digits": lambda made: _text(made, f'"size": {made.sif.size}', f'"size": {"9" * 5000}'),
    "seconds-digits": lambda made: _text(made, '"seconds": 1.5', f'"seconds": {"9" * 400}'),
    "seconds-inf": lambda made: _text(made, '"seconds": 1.5', '"seconds": 1e999'),
    "seconds-nan": lambda made: _text(made, '"seconds": 1.5', '"seconds": NaN'),
    "seconds-text": lambda made: _record(made, seconds="1.5"),
    "surrogate": lambda made: _record(made, engine="\ud800"),
    "lines": lambda made: _record(made, engine="a\nb"),
    "escapes": lambda made: _record(made, base="\x1b[2J"),
    "endless": lambda made: _record(made, engine="x" * 5000),
    "created": lambda made: _record(made, created="yesterday"),
    "created-month": lambda made: _record(made, created="2024-13-01T00:00:00Z"),
    "version": lambda made: _record(made, version="../1"),
    "parts": lambda made: _record(made, parts={**made.parts, "x": {"deep": 1}}),
    "parts-many": lambda made: _record(made, parts={str(number): "" for number in range(1000)}),
    "inputs": lambda made: _record(made, inputs="sha256:" + "0" * 64),
    "digest": lambda made: _record(made, sif_digest="sha256:" + "A" * 64),
    "fingerprint": lambda made: _record(made, fingerprint="a b\u2028c"),
    "more": lambda made: _record(made, more=1),
    "format": lambda made: _record(made, format=2),
    "twice": lambda made: _text(made, '"format": 1,', '"format": 1, "recipe": "good",'),
    "deep": lambda made: (made.folder / "candidate.json").write_text("[" * 200_000),
    "long": lambda made: (made.folder / "candidate.json").write_bytes(b" " * 100_000_000),
    "sparse-record": lambda made: _instead(made, "candidate.json", _sparse),
    "fifo-record": lambda made: _instead(made, "candidate.json", os.mkfifo),
    "link-record": lambda made: _instead(made, "candidate.json", lambda path: path.symlink_to("/etc/passwd")),
    "folder-record": lambda made: _instead(made, "candidate.json", Path.mkdir),
    "fifo-image": lambda made: _instead(made, "image.sif", os.mkfifo),
    "link-image": lambda made: _instead(made, "image.sif", lambda path: path.symlink_to("/etc/passwd")),
    "loop-image": lambda made: _instead(made, "image.sif", lambda path: path.symlink_to(path)),
    "sparse-image": lambda made: _instead(made, "image.sif", _sparse),
    "report-inf": lambda made: _text(made, '"seconds": 0.1', '"seconds": 1e999', "report.json"),
    "report-digits": lambda made: _text(made, '"seconds": 0.1', f'"seconds": {"9" * 400}', "report.json"),
    "report-surrogate": lambda made: _report(made, stdout="\udfff"),
    "report-deep": lambda made: (made.folder / "report.json").write_text('{"a":' * 200_000),
    "report-long": lambda made: (made.folder / "report.json").write_bytes(b" " * 100_000_000),
    "report-why": lambda made: _report(made, why="x" * 100_000),
    "report-name": lambda made: _report(made, name="starts\n::add-mask::a"),
    "report-outcome": lambda made: _report(made, outcome=["passed"]),
    "report-fifo": lambda made: _instead(made, "report.json", os.mkfifo),
    "report-link": lambda made: _instead(made, "report.json", lambda path: path.symlink_to("/dev/zero")),
    "log-fifo": lambda made: _instead(made, "build.log", os.mkfifo),
    "chunks-fifo": lambda made: _instead(made, "image.chunks", os.mkfifo),
    "packages-link": lambda made: _instead(made, "sbom.spdx.json", lambda path: path.symlink_to("/etc/passwd")),
}
if os.geteuid() == 0:
    MALFORMED["device"] = lambda made: _instead(
        made, "report.json", lambda path: os.mknod(path, 0o20666, os.makedev(1, 5))
    )


def test_what_one_job_hands_over_stops_neither_publishing_nor_reporting_for_others(handover: Handover) -> None:
    first, last = (handover.handed(handover.recipe(name)) for name in ("aaa", "zzz"))
    for name, act in MALFORMED.items():
        act(handover.handed(handover.recipe(name)))
    planned = handover.planned("aaa", "zzz", *MALFORMED)
    done = handover.run("publish", "--all", "--json", *planned)
    assert done.code == 5
    rows = {row["folder"].removesuffix("-amd64"): row for row in done.json()}
    assert {name for name, row in rows.items() if row["error"] is None} == {"aaa", "zzz"}
    assert set(rows) == {"aaa", "zzz", *MALFORMED}
    assert handover.published() == {"aaa": str(first.sif.digest), "zzz": str(last.sif.digest)}
    assert handover.run("report", *planned).code == 0
    told = {name: row["outcome"] for name, row in handover.rows().items()}
    assert (told.pop("aaa"), told.pop("zzz")) == ("published", "published")
    assert set(told) == set(MALFORMED)
    assert set(told.values()) <= {"not built", "not tested"}


def test_without_a_plan_malformed_candidates_stop_nothing_either(handover: Handover) -> None:
    first, last = (handover.handed(handover.recipe(name)) for name in ("aaa", "zzz"))
    harmless = {"log-fifo", "chunks-fifo", "packages-link"}  # on one's own machine nobody reads these: all is as it was
    for name, act in MALFORMED.items():
        if name not in harmless:
            act(handover.handed(handover.recipe(name)))
    assert handover.run("publish", "--all").code == 5
    assert handover.published() == {"aaa": str(first.sif.digest), "zzz": str(last.sif.digest)}
    assert handover.run("report").code == 0


def test_an_image_of_terabytes_of_zeros_does_not_keep_the_job_that_publishes_from_the_others(
    handover: Handover,
) -> None:
    bad, good = handover.recipe("bad"), handover.recipe("good")
    mine, theirs = handover.handed(bad), handover.handed(good)
    with mine.image.open("r+b") as file:
        file.truncate(1 << 40)
    record = mine.folder / "candidate.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "size": 1 << 40}))
    done = handover.run("publish", "--all", *handover.planned("bad", "good"))  # its own limit of time is a minute
    assert done.code == 5
    assert "the image of bad has 1.1 TB" in done.err
    assert handover.published() == {"good": str(theirs.sif.digest)}

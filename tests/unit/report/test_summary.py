from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import IntegrityFailure, RecipeError
from factory.plan.plan import Snapshot, plan
from factory.publish.publish import Origin, publish
from factory.recipes.load import load_usable
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.findings import Finding
from factory.records.inputs import gather
from factory.records.job import Plan, Stuck
from factory.records.release import Repeat
from factory.records.report import TestResult
from factory.registry.layout import LayoutRegistry
from factory.report.markdown import markdown, plain
from factory.report.summary import Row, RunResult, from_json, lasting, rows, to_json
from tests.unit.parts import BASE_DIGEST, ENGINE, NOW, QUIET, candidate, folder_registry, report_of, write_recipe

WARNING = Finding("setuid", "warning", "/opt/x", "the program is setuid", "it has no effect", "chmod u-s")


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


def release(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry, content: bytes) -> None:
    made = candidate(tmp_path / "work", recipe, content)
    publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def planned(recipes: Sequence[Recipe], registry: LayoutRegistry, *, force: bool = False) -> Plan:
    known = Snapshot(catalogs.read(registry), {recipe.name: BASE_DIGEST for recipe in recipes}, ENGINE, NOW)
    return plan(recipes, known, gather, force=force)


def test_each_recipe_has_a_row_with_its_outcome(tmp_path: Path, registry: LayoutRegistry) -> None:
    root, work = tmp_path / "recipes", tmp_path / "work"
    names = ("published", "tested", "failing", "untried", "unbuilt", "same")
    recipes = {name: write_recipe(root, name) for name in names}
    release(tmp_path, recipes["same"], registry, b"same")
    made = {
        name: candidate(work, recipes[name], name.encode()) for name in ("published", "tested", "failing", "untried")
    }
    for name in ("published", "tested"):
        report_of(made[name]).save(made[name].folder)
    report_of(made["failing"], TestResult("starts", "failed", 0.1, "exit 1")).save(made["failing"].folder)
    publish(
        recipes["published"],
        made["published"],
        report_of(made["published"]),
        registry=registry,
        origin=Origin(),
        progress=QUIET,
    )
    decided = planned(list(recipes.values()), registry)
    found = {row.recipe: row for row in rows(decided, RunResult(tuple(made.values())), catalogs.read(registry))}
    assert {name: row.outcome for name, row in found.items()} == {
        "published": "published",
        "tested": "tested",
        "failing": "tests failed",
        "untried": "not tested",
        "unbuilt": "not built",
        "same": "unchanged",
    }
    assert found["published"].tag == "1.0-1"
    assert found["failing"].tests == "0 passed; failed: starts"
    assert found["unbuilt"].why == "new: nothing is published"
    proposed = rows(decided, RunResult(tuple(made.values()), publishes=False), catalogs.read(registry))
    assert {row.recipe: row.outcome for row in proposed} == {
        name: "unchanged" if row.outcome == "published" else row.outcome for name, row in found.items()
    }
    assert from_json(to_json(proposed).encode()) == proposed


def test_the_size_is_compared_with_the_release_before(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes")
    release(tmp_path, recipe, registry, b"x" * 1000)
    made = candidate(tmp_path / "work", recipe, b"y" * 1500)
    report_of(made).save(made.folder)
    (row,) = rows(planned([recipe], registry, force=True), RunResult((made,)), catalogs.read(registry))
    assert (row.outcome, row.size, row.before) == ("tested", 1500, 1000)
    assert "1.5 kB (+50.0%)" in markdown([row], where="x") or "2 kB (+50.0%)" in markdown([row], where="x")
    release(tmp_path, recipe, registry, b"y" * 1500)
    (row,) = rows(planned([recipe], registry), RunResult((made,)), catalogs.read(registry))
    assert (row.outcome, row.before, row.tag) == ("published", 1000, "1.0-2")


def test_a_test_report_for_another_image_does_not_count(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes")
    report_of(candidate(tmp_path / "work", recipe, b"one")).save(tmp_path / "work" / "tool-amd64")
    made = candidate(tmp_path / "work", recipe, b"two")
    (row,) = rows(planned([recipe], registry), RunResult((made,)), catalogs.read(registry))
    assert (row.outcome, row.tests) == ("not tested", "the test report is for another image")


def test_a_recipe_with_a_failed_base_is_stuck_even_if_its_own_tests_passed(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    root, work = tmp_path / "recipes", tmp_path / "work"
    base, upper = write_recipe(root, "base"), write_recipe(root, "upper", base="recipe://base")
    low, high = candidate(work, base, b"low"), candidate(work, upper, b"high")
    report_of(low, TestResult("starts", "failed", 0.1, "exit 1")).save(low.folder)
    report_of(high).save(high.folder)
    found = {
        row.recipe: row
        for row in rows(planned([base, upper], registry), RunResult((low, high)), catalogs.read(registry))
    }
    assert (found["base"].outcome, found["upper"].outcome) == ("tests failed", "stuck")
    assert found["upper"].why == "its base base cannot be published"
    found = {
        row.recipe: row for row in rows(planned([base, upper], registry), RunResult((low,)), catalogs.read(registry))
    }
    assert (found["upper"].outcome, found["upper"].why) == ("stuck", "its base base cannot be published")


def test_a_recipe_that_cannot_be_planned_is_reported_with_the_reason(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipes")
    stuck = Plan(stuck=(Stuck(recipe, "amd64", RecipeError("no base", why="gone", fix="find it")),))
    (row,) = rows(stuck, RunResult(), catalogs.Catalog())
    assert (row.outcome, row.why) == ("stuck", "no base; gone; find it")


def test_a_report_has_one_row_per_target_and_a_size_limit() -> None:
    for found in ([GOOD, GOOD], [GOOD | {"recipe": f"r{number}"} for number in range(10_001)]):
        with pytest.raises(IntegrityFailure):
            from_json(json.dumps({"format": 1, "rows": found}).encode())


def test_texts_are_shortened_to_the_parsers_limits() -> None:
    row = Row("tool", "amd64", "tests failed", "a\x1b[31m\n" * 400, "b" * 600, changes=("c" * 600,))
    (read,) = from_json(to_json([row]).encode())
    assert (len(read.why), len(read.tests), len(read.changes[0])) == (500, 500, 500)
    assert read.why.isprintable()


def test_refused_candidates_have_a_reason_and_targets_without_a_job_wait(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    decided = planned([write_recipe(tmp_path / "recipes", name) for name in ("bad", "late")], registry)
    bad, late = ("bad", "amd64"), ("late", "amd64")
    left = RunResult(refused={bad: IntegrityFailure("no")}, planned={bad})
    found = {row.recipe: (row.outcome, row.why) for row in rows(decided, left, catalogs.Catalog())}
    assert found == {"bad": ("not built", "no"), "late": ("waiting", "new: nothing is published")}
    for by in (None, (), (late,)):  # unknown; a failed plan; a failed build
        row = next(row for row in rows(decided, RunResult(planned=by), catalogs.Catalog()) if row.recipe == "late")
        assert row.outcome == "not built"


def test_the_origin_is_shown_above_untrusted_rows() -> None:
    text = markdown([], where="x", origin="Said by somebody.")
    assert text == "### singfactory: no recipes\n\n_Said by somebody._\n"


def test_failures_come_first_and_releases_have_a_pull_command() -> None:
    digest = "sha256:" + "a" * 64
    good = Row("a", "amd64", "published", tag="1.0-1", digest=digest, size=5, seconds=1)
    text = markdown([good, Row("b", "amd64", "not built", "new"), Row("c", "amd64", "unchanged")], where="ghcr.io/o/i")
    lines = text.splitlines()
    assert lines[0] == "### singfactory: 1 published, 1 not built, 1 unchanged"
    assert [line.split()[1] for line in lines if "(amd64)" in line] == ["b", "a"]
    assert f"    singfactory pull a@{digest} --registry ghcr.io/o/i" in lines
    assert markdown([], where="x") == "### singfactory: no recipes\n"


GOOD = asdict(Row("tool", "amd64", "tested", "new", "1 passed", 5, 4, 1.5, sif_digest="sha256:" + "a" * 64))


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "../x"},
        {"recipe": "Tool"},
        {"recipe": 5},
        {"arch": "<b>"},
        {"outcome": "fine"},
        {"why": 7},
        {"tests": None},
        {"size": -1},
        {"size": "5"},
        {"size": 2**80},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": True},
        {"seconds": 10**400},
        {"outcome": "published"},
        {"outcome": ["tested"]},
        {"tag": "1.0-1"},
        {"digest": "sha256:" + "a" * 64},
        {"sif_digest": "sha256:x"},
        {"sif_digest": 5},
        {"why": "a" * 501},
        {"tests": "a" * 501},
        {"changes": ["a" * 501]},
        {"digest": "sha256:x"},
        {"digest": "md5:" + "a" * 32},
        {"tag": "a b"},
        {"tag": "`x`"},
        {"more": 1},
        {"file": 5},
        {"file": "../x"},
        {"file": "/x"},
        {"file": "a/../../b"},
        {"file": "a//b"},
        {"file": "a\\b"},
        {"file": "a\nb"},
        {"file": "a" * 201},
        {"line": -1},
        {"line": True},
        {"line": 10**7},
        {"outcome": "stuck", "recipe": "a/b"},
        {"outcome": "stuck", "recipe": ".."},
        {"outcome": "stuck", "recipe": "a\n"},
        {"outcome": "stuck", "recipe": "a" * 101},
    ],
)
def test_malformed_untrusted_rows_are_refused(change: dict[str, Any]) -> None:
    assert from_json(json.dumps({"format": 1, "rows": [GOOD]}).encode())
    with pytest.raises(IntegrityFailure):
        from_json(json.dumps({"format": 1, "rows": [GOOD | change]}).encode())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format":2,"rows":[]}', b'{"format":1,"rows":5}', b"[" * 100_000, b"\xff"]
)
def test_a_malformed_report_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityFailure):
        from_json(content)


@given(st.text(max_size=2000))
def test_untrusted_text_stays_one_line_without_markdown_html_or_mentions(text: str) -> None:
    shown = plain(text)
    assert not set(shown.replace("&#", "")) & set("\\`*_{}[]()+!|~<>@:\n\r")
    assert len(shown) < 500 * 8


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_row_is_one_table_line_for_any_text(why: str, tests: str) -> None:
    row = Row("tool", "amd64", "tests failed", why, tests)
    assert len(markdown([row], where="x").splitlines()) == 5


def test_a_folder_of_any_name_can_be_reported_as_stuck(tmp_path: Path) -> None:
    for name in ("Not a name", "a\u202eb", "x" * 200, "caf\udce9"):
        odd = Recipe(tmp_path / name, name, "0", "")
        (row,) = rows(Plan(stuck=(Stuck(odd, "amd64", RecipeError("broken")),)), RunResult(), catalogs.Catalog())
        assert from_json(to_json([row]).encode()) == (row,)


def test_problems_are_reported_with_their_location_in_the_recipe(tmp_path: Path, registry: LayoutRegistry) -> None:
    root, work = tmp_path / "recipes", tmp_path / "work"
    second = '[[test]]\nname = "second"\nrun = "false"'
    failing = write_recipe(root, "failing", more=second)
    wrong = write_recipe(root, "wrong", definition="Bootstrap: docker\nFrom: {{ base }}\n%files from nowhere\n    /a\n")
    torn = write_recipe(root, "torn")
    (torn.folder / "recipe.toml").write_text("[recipe]\nname = \n")
    made = candidate(work, failing, b"sif")
    report_of(made, TestResult("second", "failed", 0.1, "exit 1")).save(made.folder)
    _, broken = load_usable(root)
    known = Snapshot(catalogs.read(registry), dict.fromkeys(("failing", "wrong"), BASE_DIGEST), ENGINE, NOW)
    decided = plan([failing, wrong], known, gather, broken=broken)
    found = {row.recipe: row for row in rows(decided, RunResult((made,)), catalogs.read(registry))}
    line = (failing.folder / "recipe.toml").read_text().splitlines().index('name = "second"') + 1
    assert (found["failing"].file, found["failing"].line) == ("recipe.toml", line)
    assert (found["wrong"].file, found["wrong"].line) == ("image.def", 3)
    assert found["wrong"].why.startswith("image.def:3: ")
    assert (found["torn"].file, found["torn"].line) == ("recipe.toml", 2)
    assert found["torn"].why.startswith("torn/recipe.toml:2: not TOML")
    assert from_json(to_json(list(found.values())).encode()) == tuple(found.values())
    assert [row.why != "" for row in lasting([found[name] for name in ("failing", "wrong", "torn")])] == [
        False,
        True,
        True,
    ]


def test_a_planned_target_is_not_reported_as_unchanged(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes")
    release(tmp_path, recipe, registry, b"one")
    decided, catalog = planned([recipe], registry), catalogs.read(registry)
    assert [row.outcome for row in rows(decided, RunResult(), catalog)] == ["unchanged"]
    (row,) = rows(decided, RunResult(tried={("tool", "amd64")}), catalog)
    assert (row.outcome, row.why) == ("not built", "rebuilt")
    assert [row.outcome for row in rows(decided, RunResult(tried={("tool", "arm64")}), catalog)] == ["unchanged"]


def test_a_rebuild_with_the_published_contents_is_unchanged(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes")
    release(tmp_path, recipe, registry, b"one")
    made = candidate(tmp_path / "work", recipe, b"two", created="2024-05-02T12:00:00Z")
    entry = catalogs.read(registry).entry("tool")
    again = replace(entry.releases[0], repeat=Repeat(made.key, made.parts, made.created))
    catalog = catalogs.Catalog().with_entry(replace(entry, releases=(again,)))
    (row,) = rows(planned([recipe], registry), RunResult((made,), tried={("tool", "amd64")}), catalog)
    assert (row.outcome, row.why) == ("unchanged", "rebuilt: 1.0-1 has the same contents")


UPDATED = Row("tool", "amd64", "tested", size=100_000_000, before=99_000_000, update=2_400_000)


def test_update_size_and_changed_packages_are_reported() -> None:
    text = markdown([replace(UPDATED, changes=("numpy 1.26 -> 2.0 (python)", "+ six 1 (python)"))], where="x")
    assert ", 2.4 MB to update |" in text
    assert "<details><summary>tool (amd64): 2 packages changed</summary>" in text
    assert "- numpy 1.26 &#45;&#62; 2.0 &#40;python&#41;" in text


def test_unchanged_contents_are_reported_instead_of_an_update_size() -> None:
    text = markdown([replace(UPDATED, same=True)], where="x")
    assert "; contents unchanged |" in text
    assert "to update" not in text


def test_a_long_list_of_packages_is_shortened_in_markdown() -> None:
    text = markdown([replace(UPDATED, changes=tuple(f"p{number} 1 -> 2 (dpkg)" for number in range(100)))], where="x")
    assert text.count("- p") == 40
    assert "- and 60 more" in text


def test_package_names_are_never_markup() -> None:
    text = markdown([replace(UPDATED, changes=("<script> [x](http://example.org) @someone",))], where="x")
    assert "<script>" not in text
    assert "](http" not in text
    assert "@someone" not in text


def test_changes_are_serialized_and_too_many_are_refused() -> None:
    row = replace(UPDATED, changes=("a 1 -> 2 (dpkg)",), same=True)
    assert from_json(to_json([row]).encode()) == (row,)
    for wrong in (["x"] * 1001, "x", [1], None):
        value = json.loads(to_json([row]))
        value["rows"][0]["changes"] = wrong
        with pytest.raises(IntegrityFailure):
            from_json(json.dumps(value).encode())


def test_findings_of_the_readiness_checks_are_in_the_row_and_an_error_is_a_failed_test(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    root, work = tmp_path / "recipes", tmp_path / "work"
    recipes = {name: write_recipe(root, name) for name in ("open", "closed")}
    made = {name: candidate(work, recipe, name.encode()) for name, recipe in recipes.items()}
    note = replace(WARNING, severity="information")
    ignored = replace(WARNING, ignored="the vendor needs it")
    replace(report_of(made["open"]), findings=(WARNING, note, ignored)).save(made["open"].folder)
    replace(report_of(made["closed"]), findings=(replace(WARNING, severity="error"),)).save(made["closed"].folder)
    result = RunResult(tuple(made.values()))
    found = {row.recipe: row for row in rows(planned([*recipes.values()], registry), result, catalogs.read(registry))}
    assert (found["open"].outcome, found["closed"].outcome) == ("tested", "tests failed")
    assert found["open"].tests == "1 passed; readiness: 1 warning, 1 ignored"
    assert found["open"].findings == ("warning: setuid: /opt/x: the program is setuid; chmod u-s",)
    assert found["closed"].findings[0].startswith("error: setuid")
    assert from_json(to_json(list(found.values())).encode()) == tuple(found.values())
    text = markdown(list(found.values()), where="x")
    assert "<details open><summary>closed (amd64): what will not work on a cluster</summary>" in text
    assert "- warning&#58; setuid&#58; /opt/x&#58; the program is setuid; chmod u&#45;s" in text


def test_too_many_findings_and_other_types_are_refused() -> None:
    for wrong in (["x"] * 201, "x", [1], None, ["x" * 501]):
        value = json.loads(to_json([UPDATED]))
        value["rows"][0]["findings"] = wrong
        with pytest.raises(IntegrityFailure):
            from_json(json.dumps(value).encode())

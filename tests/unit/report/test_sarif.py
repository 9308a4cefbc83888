from __future__ import annotations

import json
from pathlib import Path

from factory.recipes.model import Place, Problem
from factory.report import sarif


def test_findings_become_results_with_rule_level_and_place() -> None:
    found = [
        Problem(Place(Path("/r/recipes/a b/image.def"), 3), "one", "two", warning=True, rule="asks"),
        Problem(Place(Path("/r/recipes/ü/recipe.toml")), "three", "four"),
    ]
    document = json.loads(json.dumps(sarif.document(found, lambda path: str(path.relative_to("/r")))))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    assert run["tool"]["driver"]["rules"] == [{"id": "asks"}, {"id": "recipe"}]
    assert [(one["ruleId"], one["ruleIndex"], one["level"], one["message"]["text"]) for one in run["results"]] == [
        ("asks", 0, "warning", "one; two"),
        ("recipe", 1, "error", "three; four"),
    ]
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert places == [
        {"artifactLocation": {"uri": "recipes/a%20b/image.def"}, "region": {"startLine": 3}},
        {"artifactLocation": {"uri": "recipes/%C3%BC/recipe.toml"}},
    ]


def test_no_findings_are_an_empty_list_of_results() -> None:
    (run,) = sarif.document([], str)["runs"]
    assert run["results"] == []

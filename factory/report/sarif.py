"""The findings of `lint` as SARIF, which code scanning services show at the lines of a pull request.

Specification: Static Analysis Results Interchange Format (SARIF) 2.1.0, OASIS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from factory import __version__
from factory.recipes.model import Problem

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_OTHER = "recipe"  # the rule of problems that no check, but the reader of a file found


def document(problems: Iterable[Problem], shown: Callable[[Path], str]) -> dict[str, Any]:
    """Return the SARIF document. shown: returns a file's path relative to the repository's root."""
    found = list(problems)
    rules = sorted({problem.rule or _OTHER for problem in found})
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "singfactory",
                        "version": __version__,
                        "rules": [{"id": rule} for rule in rules],
                    }
                },
                "results": [_result(problem, rules, shown) for problem in found],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def _result(problem: Problem, rules: list[str], shown: Callable[[Path], str]) -> dict[str, Any]:
    rule = problem.rule or _OTHER
    location: dict[str, Any] = {
        "artifactLocation": {"uri": quote(shown(problem.place.path).encode("utf-8", "replace"))}
    }
    if problem.place.line:
        location["region"] = {"startLine": problem.place.line}
    return {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": "warning" if problem.warning else "error",
        "message": {"text": f"{problem.message}; {problem.remedy}"},
        "locations": [{"physicalLocation": location}],
    }

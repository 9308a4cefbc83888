"""The attacker opens a pull request from a fork. It is built and tested, and nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from factory.summary import Row
from tests.factory_project import Project

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
    handed = tmp_path / "report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW | claim]}))
    done = project.run("report", "--from", str(handed), "--registry", namespace)
    assert (done.code, done.out) == (5, "")
    assert "the report cannot be read" in done.err


def test_what_a_pull_request_says_of_itself_is_shown_as_such(project: Project, namespace: str, tmp_path: Path) -> None:
    handed = tmp_path / "report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW]}))
    done = project.ok("report", "--from", str(handed), "--registry", namespace)
    assert "_This is what the pull request's own run says of itself. Nothing of it is published._" in done.out


def test_what_a_pull_request_says_of_itself_opens_and_closes_no_issue(project: Project, tmp_path: Path) -> None:
    handed = tmp_path / "report.json"
    handed.write_text(json.dumps({"format": 1, "rows": [_ROW | {"outcome": "unchanged"}]}))
    done = project.run("report", "--from", str(handed), "--issues")
    assert done.code == 2
    assert "--issues is for what this run has found itself" in done.err


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_report_of_a_pull_request_is_an_ordinary_file(project: Project, tmp_path: Path, kind: str) -> None:
    real, handed = tmp_path / "real.json", tmp_path / "report.json"
    real.write_text(json.dumps({"format": 1, "rows": [_ROW]}))
    if kind == "link":
        handed.symlink_to(real)
    else:
        os.mkfifo(handed)
    done = project.run("report", "--from", str(handed))
    assert done.code == 5
    assert "a link, a pipe or a folder stands in its place" in done.err

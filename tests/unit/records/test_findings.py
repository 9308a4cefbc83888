from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure
from factory.oci.digest import Digest
from factory.records.findings import MOST, Finding, summary
from factory.records.report import TestReport, TestResult, junit, load

ERROR = Finding("secret", "error", "/root/.netrc", "it contains a login", "everyone reads it", "remove it")
WARNING = Finding("setuid", "warning", "/opt/x", "is setuid", "it has no effect", "chmod u-s")
NOTE = Finding("largest-folders", "information", "/", "2 MB of files", "pulls take longer", "leave it out")
IGNORED = replace(ERROR, place="/opt/key.pem", ignored="a public test key")
REPORT = TestReport(
    "tool",
    Digest.of(b"sif"),
    "apptainer 1.4.0",
    "",
    "2024-05-01T12:00:00Z",
    (TestResult("starts", "passed", 0.25),),
    (ERROR, WARNING, NOTE, IGNORED),
)


def test_findings_survive_the_file_of_their_report(tmp_path: Path) -> None:
    REPORT.save(tmp_path)
    assert load(tmp_path, "tool") == REPORT


def test_a_report_of_an_older_version_has_no_findings(tmp_path: Path) -> None:
    old = REPORT.to_json()
    del old["findings"]
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert load(tmp_path, "tool").findings == ()


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ((), ""),
        ((NOTE,), ""),
        ((ERROR, WARNING, WARNING, NOTE), "1 error, 2 warnings"),
        ((IGNORED, WARNING), "1 warning, 1 ignored"),
        ((IGNORED,), "1 ignored"),
    ],
)
def test_the_summary_counts_what_is_to_be_done(findings: tuple[Finding, ...], words: str) -> None:
    assert summary(findings) == words


def test_only_an_error_that_is_not_ignored_blocks() -> None:
    assert [one.blocks for one in (ERROR, WARNING, NOTE, IGNORED)] == [True, False, False, False]
    assert REPORT.blocking == (ERROR,)


VALUE = ERROR.to_json()


@pytest.mark.parametrize(
    "findings",
    [
        {},
        "x",
        None,
        [1],
        [{}],
        [{**VALUE, "more": 1}],
        [{**VALUE, "severity": "harmless"}],
        [{**VALUE, "severity": None}],
        [{**VALUE, "place": "/a\nb"}],
        [{**VALUE, "message": "\x1b[31m"}],
        [{**VALUE, "remedy": "x" * 501}],
        [{name: text for name, text in VALUE.items() if name != "ignored"}],
        [VALUE] * (MOST + 1),
    ],
)
def test_findings_from_another_job_are_parsed_strictly(tmp_path: Path, findings: Any) -> None:
    (tmp_path / "report.json").write_text(json.dumps({**REPORT.to_json(), "findings": findings}))
    with pytest.raises(IntegrityFailure, match=r"the test report in .* is broken"):
        load(tmp_path, "tool")


def test_texts_from_an_image_become_one_short_line(tmp_path: Path) -> None:
    odd = Finding("setuid", "warning", "/a\n\x1b[31m\u202e\udc80", "x" * 1000, "e", "r", "why\n")
    assert (odd.place, odd.ignored, len(odd.message)) == ("/a??[31m??", "why?", 500)
    replace(REPORT, findings=(odd,)).save(tmp_path)
    assert load(tmp_path, "tool").findings == (odd,)


def test_junit_counts_errors_of_the_readiness_checks_as_failures() -> None:
    text = junit(REPORT).decode()
    assert 'tests="2" failures="1"' in text
    assert 'name="readiness: secret /root/.netrc"' in text
    assert "setuid" not in text

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import IntegrityFailure, NotFound
from factory.oci.digest import Digest
from factory.records.report import TestReport, TestResult, junit, load

PASSED = TestResult("starts", "passed", 0.25, stdout="hello\n")
FAILED = TestResult("sums", "failed", 1.5, "exit status 1, wanted 0", "1 + 1 = 3\n", "oops\n")
UNTESTED = TestResult("cuda", "untested", 0.0, "no GPU on this machine")
REPORT = TestReport(
    "tool", Digest.of(b"sif"), "apptainer 1.4.0", "", "2024-05-01T12:00:00Z", (PASSED, FAILED, UNTESTED)
)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ((), "no tests"),
        ((PASSED,), "1 passed"),
        ((PASSED, PASSED, UNTESTED), "2 passed; untested: cuda (no GPU on this machine)"),
        ((FAILED, PASSED), "1 passed; failed: sums"),
        ((UNTESTED,), "0 passed; untested: cuda (no GPU on this machine)"),
        ((PASSED, FAILED, UNTESTED), "1 passed; failed: sums; untested: cuda (no GPU on this machine)"),
    ],
)
def test_the_summary_never_counts_an_untested_test_as_passed(results: tuple[TestResult, ...], expected: str) -> None:
    assert replace(REPORT, results=results).summary() == expected


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    REPORT.save(tmp_path)
    assert load(tmp_path, "tool") == REPORT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junit.xml", "report.json"]


def test_without_a_report_the_image_was_not_tested(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="tool has not been tested") as caught:
        load(tmp_path, "tool")
    assert caught.value.fix == "singfactory test tool"


def broken(**values: Any) -> bytes:
    return json.dumps({**REPORT.to_json(), **values}).encode()


TEST = REPORT.to_json()["tests"][1]
NO_OUTCOMES: tuple[Any, ...] = ("Failed", "failed ", "", "ok", None, True, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        broken(tests=7),
        broken(tests=[7]),
        broken(tests=["x"]),
        broken(sif_digest="x"),
        broken(tests=[{**TEST, "seconds": "long"}]),
        *(broken(tests=[{**TEST, "outcome": outcome}]) for outcome in NO_OUTCOMES),
        *(broken(tests=[{key: text for key, text in TEST.items() if key != gone}]) for gone in TEST),
    ],
)
def test_a_broken_report_is_never_taken_for_a_good_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(IntegrityFailure):
        load(tmp_path, "tool")


def test_a_report_that_is_kept_can_be_read_again_however_much_the_tests_print(tmp_path: Path) -> None:
    loud = [
        TestResult(f"t{number}", "failed", 1.0, "x" * 5000, "\x1b" * 130_000, "\n" * 130_000) for number in range(40)
    ]
    replace(REPORT, results=tuple(loud)).save(tmp_path)
    found = load(tmp_path, "tool")
    assert len(found.results) == 40
    assert (tmp_path / "report.json").stat().st_size < 16 * 1024 * 1024
    assert found.results[0].stdout.startswith("[…]\n\x1b")
    assert len(found.results[0].why) == 1000


def test_junit_says_what_the_report_says() -> None:
    suite = ET.fromstring(junit(REPORT))
    assert suite.tag == "testsuite"
    assert suite.attrib == {
        "name": "tool",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "1.750",
        "timestamp": "2024-05-01T12:00:00",
    }
    passed, failed, untested = suite
    assert [case.attrib["name"] for case in suite] == ["starts", "sums", "cuda"]
    assert [child.tag for child in passed] == ["system-out", "system-err"]
    failure, skipped = failed.find("failure"), untested.find("skipped")
    assert failure is not None
    assert skipped is not None
    assert failure.attrib["message"] == "exit status 1, wanted 0"
    assert skipped.attrib["message"] == "untested: no GPU on this machine"
    assert failed.findtext("system-out") == "1 + 1 = 3\n"
    assert failed.findtext("system-err") == "oops\n"


FORBIDDEN = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF]))


def test_junit_is_valid_whatever_a_program_prints() -> None:
    nasty = f"<&>]]>\"'\r\n\t{FORBIDDEN}\x1b[31mred\x7f\x85\U0001f600"
    result = TestResult("starts", "failed", 0.0, nasty, nasty, nasty)
    (case,) = ET.fromstring(junit(replace(REPORT, results=(result,))))
    text = case.findtext("system-out") or ""
    assert text.startswith("<&>]]>\"'\n\t" + "\N{REPLACEMENT CHARACTER}" * len(FORBIDDEN))
    assert text.endswith("[31mred\x7f\x85\U0001f600")


@given(st.text(st.characters(), max_size=50))
def test_junit_and_json_are_valid_for_any_text(text: str) -> None:
    report = replace(REPORT, results=(TestResult("t", "untested", 0.0, text, text, text),))
    assert ET.fromstring(junit(report)).tag == "testsuite"
    assert json.loads(report.content())["tests"][0]["name"] == "t"

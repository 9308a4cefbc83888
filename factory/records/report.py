"""A test report: what was tried on which image, as JSON for machines and JUnit XML for CI services."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from factory.errors import FactoryError, IntegrityFailure, NotFound
from factory.io import files
from factory.oci.digest import Digest
from factory.records.record import Record

Outcome = Literal["passed", "failed", "untested"]
OWN_TEST = "%test"  # what factory.check.check calls the section of the definition
_FORMAT = 1
_LIMIT = 16 * 1024 * 1024  # bytes of a report; one with more output is kept with less of it
_TEXT_LIMIT = 1000  # characters of a short text in it
_OUTPUT_LIMIT = 200_000  # characters of one output; factory.check.check keeps fewer
_WIDEST = 6  # bytes that a character may need in JSON: \u001b
_CUT = "[…]\n"
_KEYS = frozenset({"format", "recipe", "sif_digest", "engine", "gpu", "started", "summary", "tests"})
_TEST_KEYS = frozenset({"name", "outcome", "seconds", "why", "stdout", "stderr"})
_XML_FORBIDDEN = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF)  # XML 1.0, production 2
    if chr(code) not in "\t\n\r"
}


@dataclass(frozen=True)
class TestResult:
    """One test. why says what was wrong, or why it was not run; outputs are their last part, as text."""

    __test__ = False  # the name looks like a test class to pytest

    name: str
    outcome: Outcome
    seconds: float
    why: str = ""
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class TestReport:
    """All tests of one image; sif_digest says exactly which bytes were tested. started is ISO 8601, UTC."""

    __test__ = False  # the name looks like a test class to pytest

    recipe: str
    sif_digest: Digest
    engine: str
    gpu: str
    started: str
    results: tuple[TestResult, ...]

    @property
    def failed(self) -> tuple[TestResult, ...]:
        """The tests that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def untested(self) -> tuple[TestResult, ...]:
        """The tests that could not be run here."""
        return tuple(result for result in self.results if result.outcome == "untested")

    def summary(self) -> str:
        """In words, honestly: ``3 passed; untested: cuda (no GPU)``, or ``no tests``."""
        if not self.results:
            return "no tests"
        passed = len(self.results) - len(self.failed) - len(self.untested)
        words = [f"{passed} passed"]
        if self.failed:
            words.append("failed: " + ", ".join(result.name for result in self.failed))
        if self.untested:
            words.append("untested: " + ", ".join(f"{result.name} ({result.why})" for result in self.untested))
        return "; ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "format": _FORMAT,
            "recipe": self.recipe,
            "sif_digest": str(self.sif_digest),
            "engine": self.engine,
            "gpu": self.gpu,
            "started": self.started,
            "summary": self.summary(),
            "tests": [
                {
                    "name": result.name,
                    "outcome": result.outcome,
                    "seconds": round(result.seconds, 3),
                    "why": _short(result.why),
                    "stdout": result.stdout,
                    "stderr": result.stderr,
                }
                for result in self.results
            ],
        }

    def content(self) -> bytes:
        """The report as it is kept and published; of very much output only the end of each."""
        whole = _encoded(self.to_json())
        if len(whole) <= _LIMIT:
            return whole
        room = _LIMIT // (4 * _WIDEST * (len(self.results) + 1))  # half of it, the rest is for names and reasons
        cut = (replace(one, stdout=_end_of(one.stdout, room), stderr=_end_of(one.stderr, room)) for one in self.results)
        return _encoded(replace(self, results=tuple(cut)).to_json())

    def save(self, folder: Path) -> None:
        """Write report.json and junit.xml."""
        files.atomic_write(folder / "report.json", self.content())
        files.atomic_write(folder / "junit.xml", junit(self))


def load(folder: Path, recipe: str) -> TestReport:
    """Read a report. Raises NotFound when the candidate has not been tested, IntegrityFailure when it is broken.

    Whoever tested it may be a stranger: it is read strictly, and speaks of this recipe.
    """
    fix = f"singfactory test {recipe}"
    try:
        report = _read(Record.read(folder / "report.json", _LIMIT))
    except FileNotFoundError as error:
        raise NotFound(f"{recipe} has not been tested", why=f"no report in {folder}", fix=fix) from error
    except (OSError, ValueError, FactoryError) as error:
        raise IntegrityFailure(f"the test report in {folder} is broken", why=str(error)[:200], fix=fix) from error
    if report.recipe != recipe:
        raise IntegrityFailure(f"the test report in {folder} is about another recipe", why=ascii(report.recipe))
    return report


def _read(record: Record) -> TestReport:
    record.format(_FORMAT)
    record.only(_KEYS)
    return TestReport(
        recipe=record.text("recipe", _TEXT_LIMIT),
        sif_digest=record.digest("sif_digest"),
        engine=record.text("engine", _TEXT_LIMIT),
        gpu=record.text("gpu", _TEXT_LIMIT),
        started=record.time("started"),
        results=tuple(_result(test) for test in record.records("tests")),
    )


def _result(test: Record) -> TestResult:
    test.only(_TEST_KEYS)
    return TestResult(
        name=test.text("name", _TEXT_LIMIT),
        outcome=_outcome(test.text("outcome", _TEXT_LIMIT)),
        seconds=test.seconds("seconds"),
        why=test.text("why", _TEXT_LIMIT),
        stdout=test.output("stdout", _OUTPUT_LIMIT),
        stderr=test.output("stderr", _OUTPUT_LIMIT),
    )


def _outcome(text: str) -> Outcome:
    """What is none of the three is not taken for passed."""
    for known in get_args(Outcome):
        if text == known:
            outcome: Outcome = known
            return outcome
    raise ValueError("there is no such outcome")


def _encoded(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else _CUT + text[-most:]


def _short(text: str) -> str:
    """A reason on one line, no longer than it may be; it quotes what a recipe says."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "…"


def junit(report: TestReport) -> bytes:
    """The report in JUnit's XML, as CI services read it; untested tests are ``skipped`` there."""
    suite = ET.Element(
        "testsuite",
        name=report.recipe,
        tests=str(len(report.results)),
        failures=str(len(report.failed)),
        errors="0",
        skipped=str(len(report.untested)),
        time=f"{sum(result.seconds for result in report.results):.3f}",
        timestamp=report.started.removesuffix("Z"),
    )
    for result in report.results:
        case = ET.SubElement(suite, "testcase", classname=report.recipe, name=result.name, time=f"{result.seconds:.3f}")
        if result.outcome == "failed":
            ET.SubElement(case, "failure", message=_xml(result.why))
        elif result.outcome == "untested":
            ET.SubElement(case, "skipped", message=_xml(f"untested: {result.why}"))
        ET.SubElement(case, "system-out").text = _xml(result.stdout)
        ET.SubElement(case, "system-err").text = _xml(result.stderr)
    content: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return content


def _xml(text: str) -> str:
    """Text without the control characters that XML 1.0 forbids."""
    return text.translate(_XML_FORBIDDEN)

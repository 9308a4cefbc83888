"""A test report: what was tried on which image, as JSON for machines and JUnit XML for CI services."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from factory.digest import Digest
from factory.errors import IntegrityFailure, NotFound
from factory.io import files

Outcome = Literal["passed", "failed", "untested"]
_FORMAT = 1
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
                    "why": result.why,
                    "stdout": result.stdout,
                    "stderr": result.stderr,
                }
                for result in self.results
            ],
        }

    def content(self) -> bytes:
        """The report as it is kept and published."""
        return (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Write report.json and junit.xml."""
        files.atomic_write(folder / "report.json", self.content())
        files.atomic_write(folder / "junit.xml", junit(self))


def load(folder: Path, recipe: str) -> TestReport:
    """Read a report. Raises NotFound when the candidate has not been tested, IntegrityFailure when it is broken."""
    try:
        value = json.loads((folder / "report.json").read_bytes())
        return TestReport(
            recipe=str(value["recipe"]),
            sif_digest=Digest.parse(value["sif_digest"]),
            engine=str(value["engine"]),
            gpu=str(value["gpu"]),
            started=str(value["started"]),
            results=tuple(
                TestResult(
                    name=str(test["name"]),
                    outcome=_outcome(test["outcome"]),
                    seconds=float(test["seconds"]),
                    why=str(test["why"]),
                    stdout=str(test["stdout"]),
                    stderr=str(test["stderr"]),
                )
                for test in value["tests"]
            ),
        )
    except FileNotFoundError as error:
        raise NotFound(
            f"{recipe} has not been tested", why=f"no report in {folder}", fix=f"singfactory test {recipe}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityFailure(
            f"the test report in {folder} is broken", why=repr(error)[:120], fix=f"singfactory test {recipe}"
        ) from error


def _outcome(text: object) -> Outcome:
    """What is none of the three is not taken for passed."""
    for known in get_args(Outcome):
        if text == known:
            outcome: Outcome = known
            return outcome
    raise ValueError(f"{text!r:.40} is no outcome")


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

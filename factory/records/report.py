"""The test report of an image, as JSON and as JUnit XML for CI services."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from factory import strict
from factory.errors import FactoryError, IntegrityFailure, NotFound
from factory.io import files
from factory.oci.digest import Descriptor, Digest
from factory.records.findings import Finding, from_records
from factory.records.gpu_tests import GpuTest
from factory.records.record import Record
from factory.records.release import TEST_REPORT, Release
from factory.registry.protocol import Manifest, Registry, read_all

Outcome = Literal["passed", "failed", "untested"]
CREATED = "org.opencontainers.image.created"  # annotation of an attached report: when its tests started
_OURS = "io.singfactory."
OWN_TEST = "%test"  # the name of the definition's test section in reports
_FORMAT = 1
_LIMIT = 16 * 1024 * 1024  # bytes of a report; longer outputs are cut
_MOST_REPORTS = 20  # that are read of one release
_TEXT_LIMIT = 1000  # characters of a short text in it
_OUTPUT_LIMIT = 200_000  # characters of one output; factory.check.check keeps fewer
_WIDEST = 6  # most bytes of a character in JSON: \u001b
_CUT = "[…]\n"
_KEYS = frozenset({"format", "recipe", "sif_digest", "engine", "gpu", "started", "summary", "tests", "findings"})
_GPU_KEYS = frozenset({"gpu_model", "driver", "site"})  # of machines with a GPU only
_TEST_KEYS = frozenset({"name", "outcome", "seconds", "why", "stdout", "stderr"})
_XML_FORBIDDEN = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF)  # XML 1.0, production 2
    if chr(code) not in "\t\n\r"
}


@dataclass(frozen=True)
class TestResult:
    """One test. why: the reason if it failed or was not run. stdout, stderr: the end of each, as text."""

    __test__ = False  # the name looks like a test class to pytest

    name: str
    outcome: Outcome
    seconds: float
    why: str = ""
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class TestReport:
    """All tests of one image. sif_digest: of the bytes that were tested. started: ISO 8601, UTC.

    findings: of the readiness checks, errors first; reports of older versions have none. gpu: nvidia, rocm, or '' for
    a machine without a GPU. gpu_model, driver: as the driver reports them. site: the cluster's name, or ''.
    """

    __test__ = False  # the name looks like a test class to pytest

    recipe: str
    sif_digest: Digest
    engine: str
    gpu: str
    started: str
    results: tuple[TestResult, ...]
    findings: tuple[Finding, ...] = ()
    gpu_model: str = ""
    driver: str = ""
    site: str = ""

    @property
    def failed(self) -> tuple[TestResult, ...]:
        """The tests that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that keep the image from being published."""
        return tuple(finding for finding in self.findings if finding.blocks)

    @property
    def untested(self) -> tuple[TestResult, ...]:
        """The tests that could not be run here."""
        return tuple(result for result in self.results if result.outcome == "untested")

    def gpu_test(self) -> GpuTest | None:
        """Return what this says of the image on a GPU; None if its tests, or some of them, did not run on one."""
        if not self.gpu or not self.gpu_model or self.untested or not self.results:
            return None
        failed = tuple(result.name for result in self.failed)
        return GpuTest(self.gpu_model, self.driver, self.started, len(self.results) - len(failed), failed, self.site)

    def annotations(self) -> dict[str, str]:
        """Return the annotations of its manifest when it is attached to a release: lists of referrers show them."""
        facts = {"gpu": self.gpu, "gpu-model": self.gpu_model, "driver": self.driver, "site": self.site}
        known = {_OURS + name: text for name, text in facts.items() if text}
        return {CREATED: self.started, **known}

    def summary(self) -> str:
        """Return the results in words: ``3 passed; untested: cuda (no GPU)``, or ``no tests``."""
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
        """Return the report as a JSON object."""
        return {
            "format": _FORMAT,
            "recipe": self.recipe,
            "sif_digest": str(self.sif_digest),
            "engine": self.engine,
            "gpu": self.gpu,
            **{name: text for name in sorted(_GPU_KEYS) if (text := getattr(self, name))},
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
            "findings": [finding.to_json() for finding in self.findings],
        }

    def content(self) -> bytes:
        """Return the report's JSON text as it is saved and published; long outputs are cut to their end."""
        whole = _encoded(self.to_json())
        if len(whole) <= _LIMIT:
            return whole
        most = _LIMIT // (4 * _WIDEST * (len(self.results) + 1))  # half of the limit; the rest is for names and reasons
        cut = (replace(one, stdout=_end_of(one.stdout, most), stderr=_end_of(one.stderr, most)) for one in self.results)
        return _encoded(replace(self, results=tuple(cut)).to_json())

    def save(self, folder: Path) -> None:
        """Write report.json and junit.xml."""
        files.atomic_write(folder / "report.json", self.content())
        files.atomic_write(folder / "junit.xml", junit(self))


def load(folder: Path, recipe: str) -> TestReport:
    """Read a report. Raises NotFound if the candidate has not been tested, IntegrityFailure if the report is broken.

    The report is untrusted input: it is parsed strictly, and must be for this recipe.
    """
    fix = f"singfactory test {recipe}"
    try:
        report = _read(Record.read(folder / "report.json", _LIMIT))
    except FileNotFoundError as error:
        raise NotFound(f"{recipe} has not been tested", why=f"no report in {folder}", fix=fix) from error
    except (OSError, ValueError, FactoryError) as error:
        raise IntegrityFailure(f"the test report in {folder} is broken", why=str(error)[:200], fix=fix) from error
    if report.recipe != recipe:
        raise IntegrityFailure(f"the test report in {folder} is for another recipe", why=ascii(report.recipe), fix=fix)
    return report


def of_release(
    release: Release, registry: Registry, attached: Iterable[Descriptor] | None = None
) -> tuple[TestReport, ...]:
    """Return the test reports of a release, newest first, without those that cannot be fetched and read.

    attached: the referrers that are test reports, if they are known. Of many, only the newest are read.
    """
    if attached is None:
        attached = registry.referrers(release.recipe, release.digest, TEST_REPORT)
    newest = sorted(attached, key=lambda one: one.annotations.get(CREATED, "9"), reverse=True)[:_MOST_REPORTS]
    found = filter(None, (_attached(release, one, registry) for one in newest))
    return tuple(sorted(found, key=lambda report: report.started, reverse=True))


def _attached(release: Release, referrer: Descriptor, registry: Registry) -> TestReport | None:
    try:
        (layer,) = Manifest.read(registry.manifest(release.recipe, str(referrer.digest))).layers
        report = _parsed(read_all(registry.blob(release.recipe, layer), _LIMIT))
    except (FactoryError, ValueError):
        return None
    return report if (report.recipe, report.sif_digest) == (release.recipe, release.sif.digest) else None


def from_job(content: bytes, recipe: str, image: Digest) -> TestReport:
    """Read the report that `singfactory test --json` printed on another machine. Raises IntegrityFailure."""
    try:
        (value,) = strict.array(strict.json_value(content, _LIMIT), 1)
        report = _read(Record(value))
    except (ValueError, FactoryError) as error:
        raise IntegrityFailure(f"the test report of {recipe} is broken", why=str(error)[:200]) from error
    if (report.recipe, report.sif_digest) != (recipe, image):
        why = f"it is about {ascii(report.recipe)[:100]} {report.sif_digest}"
        raise IntegrityFailure(f"the test report of {recipe} is about another image", why=why)
    return report


def _parsed(content: bytes) -> TestReport:
    return _read(Record(strict.json_value(content, _LIMIT)))


def last_seconds(folder: Path, recipe: str) -> float | None:
    """Return how long the tests of a candidate took last time, or None if there is no usable report of them."""
    try:
        return sum(result.seconds for result in load(folder, recipe).results)
    except FactoryError:
        return None


def _read(record: Record) -> TestReport:
    record.format(_FORMAT)
    record.only(_KEYS | _GPU_KEYS)
    facts = {name: record.text(name, _TEXT_LIMIT) for name in _GPU_KEYS if record.has(name)}
    return TestReport(
        recipe=record.text("recipe", _TEXT_LIMIT),
        sif_digest=record.digest("sif_digest"),
        engine=record.text("engine", _TEXT_LIMIT),
        gpu=record.text("gpu", _TEXT_LIMIT),
        started=record.time("started"),
        results=tuple(_result(test) for test in record.records("tests")),
        findings=from_records(record.records("findings")) if record.has("findings") else (),
        **facts,
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
    """Return the outcome. Raises ValueError for an unknown one, which must never count as passed."""
    for known in get_args(Outcome):
        if text == known:
            outcome: Outcome = known
            return outcome
    raise ValueError("unknown outcome")


def _encoded(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else _CUT + text[-most:]


def _short(text: str) -> str:
    """Return a reason on one line, cut to the limit: it quotes text from the recipe."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "…"


def junit(report: TestReport) -> bytes:
    """Return the report as JUnit XML: untested tests are ``skipped``, errors of the readiness checks are failures."""
    suite = ET.Element(
        "testsuite",
        name=report.recipe,
        tests=str(len(report.results) + len(report.blocking)),
        failures=str(len(report.failed) + len(report.blocking)),
        errors="0",
        skipped=str(len(report.untested)),
        time=f"{sum(result.seconds for result in report.results):.3f}",
        timestamp=report.started.removesuffix("Z"),
    )
    for finding in report.blocking:
        name = f"readiness: {finding.code} {finding.place}".rstrip()
        case = ET.SubElement(suite, "testcase", classname=report.recipe, name=name, time="0.000")
        ET.SubElement(case, "failure", message=f"{finding.message}; {finding.effect}").text = finding.remedy
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
    """Replace the control characters that XML 1.0 forbids."""
    return text.translate(_XML_FORBIDDEN)

"""Targets: what build jobs, other jobs and GitHub hand over."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.engine.output import Output
from factory.errors import FactoryError
from factory.github.actions import Actions
from factory.github.texts import carries, key_of, marked
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import BuildTag
from factory.plan.waves import planned
from factory.records import artifacts
from factory.records import candidate as candidates
from factory.records import report as reports
from factory.records.candidate import Candidate
from factory.records.findings import Finding
from factory.records.release import TEST_REPORT
from factory.registry.protocol import MANIFEST, artifact
from factory.report import summary
from factory.report.markdown import markdown
from factory.report.summary import Row
from factory.runners.slurm import _result as result_of_slurm
from factory.runners.slurm_output import SlurmOutput
from factory.runners.slurm_queue import JobState
from tests.attacks.fuzzing.from_registries import release
from tests.attacks.fuzzing.target import Target
from tests.unit.parts import QUIET, candidate, folder_registry, report_of, write_recipe


def _made(place: Path) -> Candidate:
    return candidate(place / "candidates", write_recipe(place / "recipes", "tool"))


def _candidates(place: Path) -> Sequence[bytes]:
    return [(_made(place).folder / "candidate.json").read_bytes()]


def _candidate(data: bytes, place: Path) -> None:
    folder = place / "tool-amd64"
    folder.mkdir()
    folder.joinpath("image.sif").write_bytes(b"sif one")
    folder.joinpath("candidate.json").write_bytes(data)
    candidates.load_if_intact(place, "tool", "amd64", "x")
    for handed in artifacts.artifacts_in(place, {("tool", "amd64")}):
        if isinstance(handed.made, FactoryError):
            "\n".join(handed.made.lines()).encode()
    found = candidates.load(place, "tool", "amd64")
    found.save()
    again = candidates.load(place, "tool", "amd64")
    assert again == replace(found, seconds=again.seconds)
    BuildTag(found.version, 1)
    f"{found.seconds:.0f} s {found.sif.size}"
    found.created.encode()


def _reports(place: Path) -> Sequence[bytes]:
    made = _made(place)
    results = (
        reports.TestResult("starts", "passed", 0.1, "", "out\n", "err"),
        reports.TestResult("cuda", "untested", 0.0, "no GPU"),
        reports.TestResult("wrong", "failed", 2.0, "exit status 1"),
    )
    findings = (
        Finding("setuid", "warning", "/opt/x", "is setuid", "it has no effect", "chmod u-s"),
        Finding("secret", "error", "/root/.netrc", "it has a login", "all read it", "remove it", "a test's"),
    )
    return [replace(report_of(made, *results), findings=findings).content()]


def _report(data: bytes, place: Path) -> None:
    place.joinpath("report.json").write_bytes(data)
    found = reports.load(place, "tool")
    found.save(place)
    again = reports.load(place, "tool")
    assert [result.outcome for result in again.results] == [result.outcome for result in found.results]
    assert again.findings == found.findings
    found.summary()
    ET.fromstring(place.joinpath("junit.xml").read_bytes())  # what a CI service reads


def _attached(place: Path) -> Sequence[bytes]:
    (content,) = _reports(place)
    return [content.replace(str(_made(place).sif.digest).encode(), str(release().sif.digest).encode())]


def _of_release(data: bytes, place: Path) -> None:
    """What `show` reads of a report that lies beside a release, in whatever registry."""
    registry, there = folder_registry(place), release()
    manifest, blobs = artifact(TEST_REPORT, data, Descriptor(MANIFEST, there.digest, 700))
    for content, blob in blobs:
        registry.push_blob(there.recipe, content, blob, QUIET)
    registry.push_referrer(there.recipe, manifest)
    found = reports.of_release(there, registry)
    for finding in found.findings if found else ():
        assert str(finding).isprintable()
        f"{finding.effect} {finding.remedy}".encode()


def _rows(_place: Path) -> Sequence[bytes]:
    digest = "sha256:" + "1" * 64
    found = [
        Row("tool", "amd64", "tested", "new", "1 passed", 10, 5, 1.5, "", "", digest, "", 0, 3, ("+ a 1",)),
        Row("other", "arm64", "stuck", "x is y", file="recipe.toml", line=3),
        Row("third", "amd64", "tests failed", "a_b <c>", "failed: x", same=True),
    ]
    return [summary.to_json(found).encode()]


def _row(data: bytes, _place: Path) -> None:
    found = summary.from_json(data)
    summary.to_json(summary.lasting(found))
    shown = markdown(found, where="ghcr.io/org/images", run_url="https://example.org")
    assert len(shown.encode()) < 64 * len(data) + 10_000


def _matrices(_place: Path) -> Sequence[bytes]:
    one = b'{"include":[{"recipe":"tool","arch":"amd64","title":"tool (amd64)"},{"recipe":"x","arch":"arm64"}]}'
    return [one, b'{"waves":[' + one + b"," + one + b"]}"]


def _events(_place: Path) -> Sequence[bytes]:
    return [
        b'{"pull_request": {"number": 7, "head": {"sha": "' + b"a" * 40 + b'"}}, "repository": {"full_name": "a/b"}}',
        b'{"workflow_run": {"html_url": "https://example.org", "head_sha": "' + b"b" * 40 + b'", "head_branch": "x",'
        b' "head_repository": {"owner": {"login": "octocat"}}}}',
        b'{"issue": {"number": 8, "pull_request": {}}}',
    ]


def _event(data: bytes, place: Path) -> None:
    file = place / "event.json"
    file.write_bytes(data)
    for name in ("workflow_run", "pull_request"):
        actions = Actions(active=True, event_file=file, event_name=name, ref="refs/pull/7/merge")
        f"{actions.pull_request} {actions.reported_run_url} {actions.reported_head} {actions.reported_sha}"


def _body(data: bytes, _place: Path) -> None:
    text = data.decode("utf-8", "surrogateescape")
    key_of(text)
    carries(text, text)
    marked(text[:1000], text).encode()


def _slurm(data: bytes, _place: Path) -> None:
    for status in (0, 1, 4, 137):
        output = SlurmOutput("tool", "7", "token", Silent())
        for at in range(0, len(data), 4096):
            output.take(data[at : at + 4096])
        output.end()
        error = output.failure(status, JobState("FAILED"), Path("/made"))
        "\n".join((*error.detail, *error.lines())).encode()
        assert len(error.detail) <= 20


def _document(data: bytes, _place: Path) -> None:
    result_of_slurm(data.decode("utf-8", "replace"), "tool")


def _engine(data: bytes, place: Path) -> None:
    lines: list[str] = []
    output = Output(lines.append)
    for at in range(0, len(data), 4096):
        output.take(data[at : at + 4096])
    output.end()
    error = output.failure(255, place / "build.log")
    "\n".join((*error.detail, *error.lines())).encode()
    assert len(error.detail) <= 15
    "".join(lines).encode()


_SLURM_WORDS = (
    b"token start 0 node1",
    b"token start 1 node2",
    b"token unseen /x",
    b"slurmstepd: ",
    b"slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-02T03:04:05 ***",
    b"slurmstepd-n1: error: Detected 1 oom_kill event",
    b"DUE TO TIME LIMIT",
    b"singfactory: x",
    b"    x",
    b"  x",
    b"node failure",
    b"PREEMPTION",
    b"CANCELLED AT",
    b"singfactory-step 9999999999999999.1 ",
)
_FAILED = b"""\
token start 0 node1
+ make
    last words
singfactory: %post failed
  exit status 1
  the whole log is /w/build.log
slurmstepd-node1: error: x
"""
_TOO_LONG = b"""\
token start 1 node1
x
slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***
"""
_POST_FAILED = b"""\
INFO:    Starting build...
INFO:    Running setup scriptlet
INFO:    Running post scriptlet
+ echo \x1b[31mx\x1b[0m
50%\r100%
ERROR: No matching distribution
FATAL:   While performing build: while running engine: exit status 1
"""
_NO_BASE = b"INFO:    Starting build...\nFATAL:   conveyor failed to get: manifest unknown\n"
_ENGINE_WORDS = (
    b"INFO:    Running post script",
    b"FATAL:   x",
    b"ERROR:   x",
    b"no space left on device",
    b"\r",
    b"\x1b]0;x\x07",
    b"\x9b1m",
    b"\xc2\x9b",
    b"WARNING: While bind mounting",
    b"no such host",
    b"unauthorized",
)
_DOCUMENT = (
    b'prolog\n[\n {\n  "recipe": "tool",\n  "arch": "amd64",\n  "sif_digest": "sha256:' + b"0" * 64 + b'"\n }\n]\n',
)
_COMMENTS = (b"<!-- singfactory: report -->\n### singfactory: 1 published\n\nall is well\n", b"a person's words\r\n")

TARGETS = (
    Target("candidate.json", _candidate, _candidates, "json"),
    Target("report.json", _report, _reports, "json"),
    Target("report-of-a-release", _of_release, _attached, "json", inputs=60),
    Target("report-rows", _row, _rows, "json"),
    Target("matrices", lambda data, _: planned(data.decode("utf-8", "replace")), _matrices, "json"),
    Target("event-of-github", _event, _events, "json"),
    Target(
        "comment-on-github", _body, lambda _: _COMMENTS, "text", words=(b"<!-- ", b" -->", b"singfactory: ", b"\r\n")
    ),
    Target("output-of-slurm", _slurm, lambda _: (_FAILED, _TOO_LONG), "text", words=_SLURM_WORDS),
    Target(
        "document-of-slurm",
        _document,
        lambda _: _DOCUMENT,
        "text",
        words=(b"[", b"]", b"{", b"[\n", b"\n]\n", b'"recipe"'),
    ),
    Target("output-of-the-engine", _engine, lambda _: (_POST_FAILED, _NO_BASE), "text", words=_ENGINE_WORDS),
)

"""`singfactory show`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.io.files import readable_size
from factory.oci.names import Reference
from factory.publish.published import builds
from factory.pull.resolve import resolve
from factory.records import gpu_tests
from factory.records import report as reports
from factory.records.findings import summary
from factory.records.release import TEST_REPORT
from factory.sif.needs import Needs


@dataclass(frozen=True)
class ShowOptions(CommonOptions):
    """Options of `singfactory show`."""

    ref: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ref", metavar="REF", help="NAME, NAME:TAG or NAME@sha256:HEX")
    common_arguments(parser, ShowOptions, registry=True, store=True, json=True)


def run(options: ShowOptions) -> int:
    """Print the details of an image, and its path if it is in the store."""
    context = Context(options)
    reference = context.reference(options.ref)
    registry = context.registry_of(reference)
    found = resolve(reference, registry, context.arch)
    release = found.release
    stored = context.store.where(release.sif)
    attached = registry.referrers(release.recipe, release.digest, TEST_REPORT)
    read = reports.of_release(release, registry, attached)
    on_gpus = gpu_tests.newest(test for test in (report.gpu_test() for report in read) if test is not None)
    findings = read[0].findings if read else ()
    facts: dict[str, Any] = {
        "name": release.recipe,
        "registry": registry.describe(),
        **release.to_json(),
        "path": str(stored) if stored else None,
        "builds": [str(tag) for tag in _builds(context, reference)],
        "test_reports": [str(report.digest) for report in attached],
        "gpu_tests": [test.to_json() for test in on_gpus],
        "findings": [finding.to_json() for finding in findings],
    }
    if found.notice:
        context.progress.note(found.notice)
    if options.json:
        emit(facts)
        return 0
    facts["size"] = f"{readable_size(release.sif.size)} ({release.sif.size} bytes)"
    facts["update"] = f"{readable_size(release.update.size)} from {release.update.tag}" if release.update else ""
    facts["chunks"] = facts["repeat"] = facts["findings"] = ""
    facts["readiness"] = summary(findings)
    facts["gpu_tests"] = ""
    facts["gpu"] = gpu_tests.summary(on_gpus) if on_gpus or release.run.gpu != "none" else ""
    if not release.inputs:
        facts["tag"] = facts["inputs"] = "unknown: not built by singfactory"
    facts["run"] = _in_words(facts["run"])
    facts["needs"] = _needs(release.needs)
    facts["project"] = " ".join(release.project.get(name, "") for name in ("source", "path", "commit")).strip()
    for name, value in facts.items():
        if value not in (None, "", [], {}) and name != "parts":
            text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
            say(f"{name:12} {text}")
    for finding in findings:
        say(f"  {finding.severity}: {finding}" + (f" (ignored: {finding.ignored})" if finding.ignored else ""))
    return 0


def _in_words(run: Mapping[str, Any]) -> str:
    """Return what `exec` adds to a run: ``gpu nvidia, binds /dataset /final_log, env A=1``."""
    said = {
        "gpu": "" if run["gpu"] == "none" else run["gpu"],
        "binds": " ".join(run["binds"]),
        "env": " ".join(f"{name}={value}" for name, value in run["env"].items()),
    }
    return ", ".join(f"{name} {text}" for name, text in said.items() if text)


def _needs(needs: Needs) -> str:
    rocm = f"ROCm {needs.rocm}" if needs.rocm else ""
    gpus = f"code for {' '.join(needs.architectures)}" if needs.architectures else ""
    cuda = needs.in_words() or (f"CUDA {needs.cuda}" if needs.cuda else "")
    return "; ".join(filter(None, (cuda, rocm, gpus)))


def _builds(context: Context, reference: Reference) -> tuple[Any, ...]:
    return builds(context.registry_of(reference), reference.name)

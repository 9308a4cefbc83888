"""Targets: what jobs, pull requests and other users of a cluster leave for commands on a login node."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.cli import try_image
from factory.cli.context import Context
from factory.cli.main import parse
from factory.jobs import modules
from factory.oci.digest import Digest
from factory.records import report as reports
from factory.runners import slurm_state
from factory.runners.slurm_state import JobRecord
from factory.store import pins
from factory.store.refs import StoredImage
from tests.attacks.fuzzing.target import Target
from tests.unit.parts import candidate, report_of, write_recipe

_DIGEST = Digest("sha256", "1" * 64)
_IMAGE = StoredImage("tool", "1.0-1", "ghcr.io/org/images", _DIGEST, _DIGEST, 7, "2026-01-02T03:04:05Z")


def _archives(place: Path) -> Sequence[bytes]:
    made = candidate(place / "candidates", write_recipe(place / "recipes", "tool"))
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as packed:
            for name in ("candidate.json", "image.sif"):
                packed.write(made.folder / name, name)
        found.append(file.getvalue())
    return found


def _archive(data: bytes, place: Path) -> None:
    """What `try` does with the artifact of a pull request: anybody can write one."""
    archive = place / "artifact.zip"
    archive.write_bytes(data)
    _, options = parse(["try", "--store", str(place / "store"), "--quiet", str(archive)])
    found = try_image._of_archive(Context(options), archive, "an artifact")  # noqa: SLF001 - its parser
    assert found.path.is_relative_to(place / "store")


def _pins(place: Path) -> Sequence[bytes]:
    return [f'{{"format": 1, "sif_digest": "{_DIGEST}", "file": "{place}/module"}}\n'.encode()]


def _pin(data: bytes, place: Path) -> None:
    folder = place / pins.FOLDER
    folder.mkdir()
    folder.joinpath(f"{_DIGEST.hex}.{'0' * 12}.json").write_bytes(data)
    for found in pins.read(place):
        found.holds(0.0, 1.0)
        str(found.file).encode("utf-8", "surrogateescape")


def _job_reports(place: Path) -> Sequence[bytes]:
    made = candidate(place / "candidates", write_recipe(place / "recipes", "tool"))
    results = (reports.TestResult("cuda", "passed", 0.1, "", "out\n", "err"),)
    content = replace(report_of(made, *results), sif_digest=_DIGEST, gpu_model="NVIDIA H100", driver="550.1").content()
    return [b"[" + content.strip() + b"]"]


def _job_report(data: bytes, place: Path) -> None:
    found = reports.from_job(data, "tool", _DIGEST)
    assert (found.gpu_model + found.driver).isprintable()
    found.save(place)
    reports.load(place, "tool")


def _records(place: Path) -> Sequence[bytes]:
    (place / ".jobs").mkdir()
    JobRecord(place, "tool", "amd64", "0" * 12, 3, "key", 1e9, "7_3", "cluster").save()
    (path,) = place.rglob("tool-amd64.json")
    return [path.read_bytes()]


def _record(data: bytes, place: Path) -> None:
    (place / ".jobs").mkdir()
    JobRecord(place, "tool", "amd64", "0" * 12, 3, "key", 1e9).save()
    (path,) = place.rglob("tool-amd64.json")
    path.write_bytes(data)
    found = slurm_state.load(place, "tool", "amd64")
    assert found is not None
    assert found.folder.is_relative_to(place)
    assert not found.job.startswith("-")


def _module_records(_place: Path) -> Sequence[bytes]:
    record = {"format": 1, "image": _IMAGE.to_json(), "programs": ["python", "torchrun"]}
    return [json.dumps(record, indent=1, sort_keys=True).encode()]


def _module_record(data: bytes, place: Path) -> None:
    path = place / "record.json"
    path.write_bytes(data)
    found = modules._read(path)  # noqa: SLF001 - its parser
    assert found is not None
    assert all("/" not in name for name in found.programs)


TARGETS = (
    Target("artifact-of-a-pull-request", _archive, _archives, "sif", inputs=200),
    Target("pin", _pin, _pins, "json", inputs=100),
    Target("report-of-a-job", _job_report, _job_reports, "json", inputs=100),
    Target("record-of-a-job", _record, _records, "json", inputs=100),
    Target("record-of-a-module", _module_record, _module_records, "json", inputs=100),
)

"""The records of jobs: whole or refused, and their files go with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure
from factory.runners.slurm_state import End, JobRecord, load, run_folder

RUN = "0123456789ab"


def record(folder: Path, recipe: str = "tool", run: str = RUN, number: int = 0) -> JobRecord:
    run_folder(folder, run).mkdir(parents=True, exist_ok=True)
    (run_folder(folder, run) / "job.sh").touch()
    (run_folder(folder, run) / f"{number}.log").touch()
    return JobRecord(folder, recipe, "amd64", run, number, "sha256:x", 12.5, "7", "main").save()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    saved = record(tmp_path)
    assert load(tmp_path, "tool", "amd64") == saved
    assert load(tmp_path, "tool", "arm64") is None
    assert load(tmp_path, "other", "amd64") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job", "7; rm -rf /"),
        ("job", "--user=root"),
        ("job", "7_"),
        ("job", 7),
        ("cluster", "-all"),
        ("run", "../../elsewhere"),
        ("run", ""),
        ("number", -1),
        ("number", 1.5),
        ("submitted", "now"),
        ("recipe", "another"),
        ("collected", "no"),
        ("format", 2),
        ("key", None),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(tmp_path: Path, name: str, value: object) -> None:
    record(tmp_path)
    path = tmp_path / ".jobs/tool-amd64.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(IntegrityFailure, match="the record of the SLURM job of tool is broken"):
        load(tmp_path, "tool", "amd64")


def test_a_newer_job_removes_the_files_of_the_last_one(tmp_path: Path) -> None:
    record(tmp_path)
    newer = record(tmp_path, run="f" * 12)
    assert not run_folder(tmp_path, RUN).exists()
    assert (newer.log.exists(), load(tmp_path, "tool", "amd64")) == (True, newer)


def test_members_of_an_array_are_removed_one_by_one(tmp_path: Path) -> None:
    one, two = record(tmp_path, "one", number=0), record(tmp_path, "two", number=1)
    one.remove()
    assert (one.log.exists(), two.log.exists()) == (False, True)
    two.remove()
    assert [path.name for path in (tmp_path / ".jobs").iterdir()] == []


def test_a_result_that_was_seen_is_marked_unless_a_newer_job_is_there(tmp_path: Path) -> None:
    first = record(tmp_path)
    newer = record(tmp_path, run="f" * 12)
    first.mark_collected()
    assert load(tmp_path, "tool", "amd64") == newer
    newer.mark_collected()
    assert load(tmp_path, "tool", "amd64") == replace(newer, collected=True)


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"0\n[]\n", End(0, "[]\n")),
        (b"137\n", End(137, "")),
        (b"", End(1, "")),
        (b"six\n[]", End(1, "")),
        (b"0\n\xff", End(0, "\ufffd")),
    ],
)
def test_a_result_is_a_status_and_a_document(tmp_path: Path, content: bytes, end: End) -> None:
    one = record(tmp_path)
    assert one.end() is None
    (one.folder / "0.end").write_bytes(content)
    assert one.end() == end

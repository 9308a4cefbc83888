"""`singfactory try`: images of pull requests, from files and from GitHub's answers."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path

import pytest

from factory.records.candidate import Candidate
from tests.unit.cli.cluster import SIF, Cluster
from tests.unit.parts import candidate, write_recipe


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture
def made(cluster: Cluster) -> Candidate:
    found = candidate(cluster.folder / "candidates", write_recipe(cluster.folder / "recipes"), SIF)
    found.save()
    return found


def zipped(made: Candidate, **other: bytes) -> str:
    """An artifact as upload-artifact makes it: stored, not compressed."""
    path = made.folder.parent / "artifact.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(made.folder.iterdir()):
            archive.writestr(file.name, other.get(file.stem, file.read_bytes()))
    return str(path)


def test_an_artifact_runs_contained_and_leaves_no_name_in_the_store(cluster: Cluster, made: Candidate) -> None:
    done = cluster.ok("try", zipped(made), "--", "true")
    assert done.out == f"exec {SIF[-5:].decode()}\n"
    assert "not published: " in done.err
    assert str(made.sif.digest) in done.err
    assert "it does not see your home" in done.err
    assert list(cluster.store.images()) == []
    assert cluster.run("path", "tool").code == 3
    assert [path.name for path in (cluster.store.root / "tried").iterdir()] == [f"{made.sif.digest.hex}.sif"]


def test_without_a_program_it_prints_the_path(cluster: Cluster, made: Candidate) -> None:
    path = Path(cluster.ok("try", zipped(made)).out.strip())
    assert path.read_bytes() == SIF
    assert not path.stat().st_mode & 0o222
    assert cluster.ok("try", str(path)).out.strip() == str(path)


def test_an_image_that_is_not_the_one_of_its_record_is_refused(cluster: Cluster, made: Candidate) -> None:
    for wrong in (SIF[:-1] + b"X", SIF[:-1], b""):
        done = cluster.run("try", zipped(made, image=wrong), "--", "true")
        assert (done.code, done.out) == (5, "")
    record = json.loads((made.folder / "candidate.json").read_text())
    for recipe in ("../x", "x/../../y", "", "X"):
        done = cluster.run("try", zipped(made, candidate=json.dumps({**record, "recipe": recipe}).encode()))
        assert done.code == 5, done.err
    assert not [path for path in (cluster.store.root / "tried").iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize(("name", "code"), [("missing.zip", 3), ("text.sif", 2), ("broken.zip", 2)])
def test_other_files_are_refused(cluster: Cluster, name: str, code: int) -> None:
    (cluster.folder / "text.sif").write_text("text")
    (cluster.folder / "broken.zip").write_bytes(b"PK\3\4 no archive")
    assert cluster.run("try", name, "--", "true").code == code


def test_gc_removes_it_a_week_after_its_last_use(cluster: Cluster, made: Candidate) -> None:
    path = Path(cluster.ok("try", zipped(made)).out.strip())
    cluster.ok("store", "gc", "--grace", "0")
    assert path.exists()
    old = time.time() - 8 * 86400
    os.utime(path, (old, old))
    verdicts = cluster.ok("store", "gc", "--grace", "0", "--dry-run", "--json").json()
    assert path.exists()
    kept = [row for row in verdicts["kept"] if row["path"] == str(path)]
    assert not kept or "tried" in kept[0]["why"]  # its change time is new, whatever its modification time says

"""The commands that look after images on a cluster, as people type them, with a registry in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.oci.digest import Digest
from factory.records.lockfile import read
from factory.store import leases
from tests.unit.cli.cluster import FIRST, SECOND, SIF, Cluster
from tests.unit.parts import folder_registry

pytestmark = pytest.mark.slow  # each test starts several processes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.release(FIRST)
    yield made
    assert made.run("store", "verify").code == 0


def test_a_running_image_survives_gc(cluster: Cluster) -> None:
    process = cluster.start("exec", "tool", "--", "true", WAIT="yes")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "exec first\n"
        everything = ("store", "gc", "--keep", "0", "--grace", "0")
        said = cluster.ok(*everything, "-v").out
        assert f"tool:1.0-1, tool:latest: in use by process {process.pid} of user {os.getuid()} on " in said
        assert said.endswith(f"\n0 B freed; {len(FIRST)} B kept\n")
        assert cluster.ok(*everything).out == f"0 B freed; {len(FIRST)} B kept\n", "what is kept is told with -v only"
        process.communicate("\n", timeout=30)
        would = cluster.ok(*everything, "--dry-run").out
        reason = "tool:1.0-1, tool:latest: not among the 0 most recently used of its recipe"
        assert f"would remove    {len(FIRST)} B  {reason}\n" in would
        assert would.endswith(f"\n{len(FIRST)} B would be freed; 0 B kept\n")
        assert f"removed    {len(FIRST)} B  {reason}\n" in cluster.ok(*everything).out
        assert cluster.run("path", "tool").code == 3
    finally:
        process.kill()
        process.communicate()


def test_gc_prints_json(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    value = cluster.ok("store", "gc", "--dry-run", "--json").json()
    (kept,) = value.pop("kept")
    assert value == {"dry_run": True, "freed": 0, "removed": []}
    assert set(kept) == {"path", "name", "size", "freed", "why"}
    assert kept["why"].startswith(("in use by", "used "))


def test_gc_keeps_images_in_lock_files_and_refuses_an_unreadable_one(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    cluster.ok("lock", "tool", "-o", "paper.lock")
    gc = ("store", "gc", "--keep", "0", "--grace", "0", "--lock-file", "paper.lock")
    assert "locked by paper.lock" in cluster.ok(*gc, "-v").out
    (cluster.folder / "broken.lock").write_text("format = 1\n[[image]]\nname = '../x'\n")
    refused = cluster.run(*gc, "broken.lock")
    assert refused.code == 2
    assert refused.err.startswith("singfactory: broken.lock: image[1].size is wrong\n")
    assert cluster.run("store", "gc", "--lock-file", "missing.lock").code == 3
    cluster.ok("path", "tool")


@pytest.mark.parametrize(
    ("option", "value"), [("--grace", "soon"), ("--max-size", "-1"), ("--keep", "-1"), ("--older-than", "30")]
)
def test_gc_names_an_invalid_option(cluster: Cluster, option: str, value: str) -> None:
    done = cluster.run("store", "gc", f"{option}={value}")
    assert done.code == 2
    assert done.err.startswith(f"singfactory: store gc: argument {option}: '{value}': write ")


def test_what_a_scratch_file_system_deleted_comes_back_as_the_same_digest(cluster: Cluster) -> None:
    first = cluster.ok("pull", "tool", "--json").json()
    Path(first["path"]).unlink()
    cluster.release(SECOND)
    lost = cluster.run("path", "tool")
    assert lost.code == 3
    assert lost.err == (
        "singfactory: the file of tool:1.0-1 is gone from the store\n"
        f"  {first['path']} was deleted or truncated; many scratch file systems delete files that are not used\n"
        f"  get the same image back with: singfactory pull tool@{first['digest']}\n"
    )
    done = cluster.ok("exec", "tool", "--", "true")
    assert done.out == "exec first\n"
    assert done.err == "tool:1.0-1 was deleted from the store; fetching the same image again\n"
    assert cluster.ok("path", "tool").out.strip() == first["path"]


def test_a_truncated_image_is_fetched_again(cluster: Cluster) -> None:
    path = Path(cluster.ok("pull", "tool", "--json").json()["path"])
    path.chmod(0o644)
    os.truncate(path, 3)
    path.chmod(0o444)
    assert cluster.run("path", "tool").code == 3
    assert cluster.ok("exec", "tool", "--", "true").out == "exec first\n"


def test_exec_records_what_it_ran(cluster: Cluster) -> None:
    for job in ("", "7"):
        cluster.ok("exec", "--record", "ran.jsonl", "tool", "python", "tr\nain.py", SLURM_JOB_ID=job)
    first, second = (json.loads(line) for line in (cluster.folder / "ran.jsonl").read_text().splitlines())
    pulled = cluster.ok("pull", "tool", "--json").json()
    assert set(first) == {
        *("time", "name", "tag", "registry", "digest", "sif_digest", "path", "command", "host", "user", "slurm_job")
    }
    assert {key: first[key] for key in ("name", "tag", "registry", "digest", "sif_digest", "path")} == {
        key: pulled[key] for key in ("name", "tag", "registry", "digest", "sif_digest", "path")
    }
    assert first["command"] == ["exec", "python", "tr\nain.py"]
    assert (first["slurm_job"], second["slurm_job"]) == ("", "7")


def test_a_record_that_cannot_be_written_ends_the_run_before_it_begins(cluster: Cluster) -> None:
    done = cluster.run("exec", "tool", "--record", "no/such/folder/ran", "--", "true")
    assert done.code != 0
    assert done.out == ""


def test_path_and_stage_record_a_use_of_the_image(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    for path in (cluster.store.root / "leases").iterdir():
        path.unlink()
    cluster.ok("path", "tool", SLURM_JOB_ID="7")
    local = str(cluster.folder / "local")
    cluster.ok("stage", "tool", "--to", local)
    assert sorted((lease.pid, lease.job.number) for lease in leases.read(cluster.store.root)) == [(0, ""), (0, "7")]
    assert [lease.sif_digest for lease in leases.read(Path(local, f"user-{os.getuid()}"))] == [Digest.of(FIRST)]


def test_lock_writes_what_exec_would_run_and_pull_fetches_exactly_that(cluster: Cluster) -> None:
    cluster.ok("pull", "tool")
    cluster.release(SECOND)
    done = cluster.ok("lock", "tool")
    assert done.out == "singfactory.lock\n"
    (locked,) = read(cluster.folder / "singfactory.lock")
    assert (locked.name, locked.tag, locked.sif_digest, locked.size) == ("tool", "1.0-1", Digest.of(FIRST), len(FIRST))
    assert locked.registry == cluster.registry.describe()
    assert f"locked tool:1.0-1 as {locked.digest}" in done.err
    fresh = ("--store", str(cluster.folder / "fresh"))
    value = cluster.ok("pull", "--locked", "singfactory.lock", "--json", *fresh, SINGFACTORY_REGISTRY="").json()
    assert (value["sif_digest"], value["transferred"]) == (str(Digest.of(FIRST)), len(FIRST))
    assert cluster.ok("pull", "tool", "--locked", "singfactory.lock", "--json", *fresh).json()["transferred"] == 0
    other = cluster.run("pull", "tool:latest", "--locked", "singfactory.lock", *fresh)
    assert other.code == 3
    assert other.err == "singfactory: tool:latest is not in singfactory.lock\n  the file has tool:1.0-1\n"


def test_what_is_not_stored_is_locked_as_the_registry_has_it(cluster: Cluster) -> None:
    text = cluster.ok("lock", "tool", "-o", "-").out
    assert f'sif_digest = "{Digest.of(FIRST)}"' in text
    assert list(cluster.store.blobs()) == [], "nothing is fetched for it"
    cluster.ok("pull", "tool")
    cluster.release(SECOND)
    other = cluster.folder / "other"
    there = folder_registry(other).describe()
    assert cluster.run("lock", "tool", "-o", "-", "--registry", there).code == 3, "another registry was named"


def test_a_manifest_that_holds_another_image_than_the_locked_one_is_an_integrity_failure(cluster: Cluster) -> None:
    text = cluster.ok("lock", "tool", "-o", "-").out
    wrong = text.replace(str(Digest.of(FIRST)), str(Digest.of(b"evil")))
    (cluster.folder / "wrong.lock").write_text(wrong)
    done = cluster.run("pull", "--locked", "wrong.lock")
    assert done.code == 5
    assert "is not the locked image" in done.err
    assert list(cluster.store.blobs()) == []


def test_pull_wants_something_to_pull(cluster: Cluster) -> None:
    done = cluster.run("pull")
    assert done.code == 2
    assert done.err.startswith("singfactory: pull needs an image\n")


def test_a_file_is_adopted_and_run(cluster: Cluster) -> None:
    path = cluster.folder / "mine.sif"
    path.write_bytes(SIF)
    path.chmod(0o644)
    done = cluster.ok("store", "adopt", "mine.sif")
    assert done.out == f"{cluster.store.blob(Digest.of(SIF))} {Digest.of(SIF)}\n"
    assert done.err.splitlines()[-1].startswith("mine.sif is now mine:adopted (")
    assert cluster.ok("exec", "mine", "--", "true").out == "exec image\n"
    assert cluster.ok("store", "adopt", "mine.sif", "--as", "other:1", "--json").json()["way"] == "here"
    assert cluster.run("lock", "mine", "-o", "-").code == 2
    cluster.store.blob(Digest.of(SIF)).unlink()
    lost = cluster.run("exec", "mine", "--", "true")
    assert lost.code == 3
    assert lost.err.endswith("  get the same image back with: singfactory store adopt FILE --as mine:adopted\n")


def test_adopt_reports_each_error(cluster: Cluster) -> None:
    (cluster.folder / "text.sif").write_text("no image")
    (cluster.folder / "Bad Name.sif").write_bytes(SIF)
    for arguments, code, text in (
        (("text.sif",), 2, "is not a SIF image\n  it has 8 bytes, less than the header's 128\n"),
        (("missing.sif",), 3, "there is no file "),
        (("Bad Name.sif",), 2, "  choose a name: singfactory store adopt Bad Name.sif --as NAME:TAG\n"),
        (("text.sif", "x.sif", "--as", "a:b"), 2, "--as names one image"),
        (("text.sif", "--as", "ghcr.io/x/a:b"), 2, "--as takes NAME or NAME:TAG"),
        (("text.sif", "--as", "../x"), 2, "not a registry address"),
    ):
        done = cluster.run("store", "adopt", *arguments)
        assert (done.code, text in done.err) == (code, True), done

"""Commands that write a file of the user's: what was in it is kept, and another kind of file is not overwritten."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from factory.errors import PlaceUnusable
from factory.io import files
from factory.oci.digest import Digest
from factory.records.candidate import require_folder
from factory.records.lockfile import LockedImage, read
from factory.registry import credentials
from tests.unit.cli.cluster import FIRST, ROOT, SECOND, Cluster
from tests.unit.parts import sif_of

# Permissions count for root, too, without these two capabilities (capabilities(7)).
_DROPPED = "-dac_override,-dac_read_search"
ORDINARY = ("setpriv", f"--bounding-set={_DROPPED}", f"--inh-caps={_DROPPED}") if os.geteuid() == 0 else ()
THESIS = "\\documentclass{article}\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.release(FIRST)
    made.release(sif_of(b"another"), name="other")
    return made


def locked(cluster: Cluster, name: str = "singfactory.lock") -> dict[str, LockedImage]:
    entries = read(cluster.folder / name)
    found = {f"{entry.name}:{entry.tag}": entry for entry in entries}
    assert len(found) == len(entries)
    return found


@pytest.mark.slow
def test_lock_keeps_the_other_images_of_a_lock_file(cluster: Cluster) -> None:
    cluster.ok("lock", "tool")
    first = locked(cluster)["tool:1.0-1"]
    said = cluster.ok("lock", "other").err
    assert said.startswith("locked other:1.0-1 as sha256:")
    assert "dropped" not in said
    assert list(locked(cluster)) == ["tool:1.0-1", "other:1.0-1"]
    assert locked(cluster)["tool:1.0-1"] == first
    cluster.ok("pull", "--locked", "singfactory.lock")
    assert {digest for digest, _ in cluster.store.blobs()} == {Digest.of(FIRST), Digest.of(sif_of(b"another"))}
    gone = cluster.ok("store", "gc", "--keep", "0", "--grace", "0", "--lock-file", "singfactory.lock").out
    assert gone.startswith("0 B freed"), "both are still protected"


@pytest.mark.slow
def test_lock_updates_the_entry_of_a_name_and_says_what_it_was(cluster: Cluster) -> None:
    cluster.ok("lock", "tool", "other")
    before = locked(cluster)
    assert "tool:1.0-1 is already locked as sha256:" in cluster.ok("lock", "tool").err
    assert locked(cluster) == before, "not even the date changes"
    cluster.release(SECOND)
    said = cluster.ok("lock", "tool").err
    assert f"(was 1.0-1, {before['tool:1.0-1'].digest})" in said
    assert list(locked(cluster)) == ["tool:1.0-2", "other:1.0-1"]
    cluster.release(sif_of(b"third"))
    cluster.ok("lock", "tool:1.0")
    assert list(locked(cluster)) == ["tool:1.0-3", "other:1.0-1"], "a version names its builds"


@pytest.mark.slow
def test_another_tag_of_a_recipe_is_another_entry(cluster: Cluster) -> None:
    cluster.release(SECOND)
    cluster.ok("lock", "tool:1.0-1")
    cluster.ok("lock", "tool:1.0-2", "other")
    assert list(locked(cluster)) == ["tool:1.0-1", "tool:1.0-2", "other:1.0-1"]
    cluster.release(sif_of(b"third"))
    cluster.ok("lock", "tool")
    assert list(locked(cluster)) == ["tool:1.0-1", "tool:1.0-2", "other:1.0-1", "tool:1.0-3"], "which one is unclear"
    cluster.ok("lock", "tool:1.0-1", "tool", "-o", "both.lock")
    assert list(locked(cluster, "both.lock")) == ["tool:1.0-1", "tool:1.0-3"], "two names of one command are two images"


@pytest.mark.slow
def test_the_same_name_of_another_registry_is_another_entry(cluster: Cluster) -> None:
    cluster.ok("lock", "tool")
    shutil.copytree(cluster.folder / "images", cluster.folder / "mirror")
    cluster.ok("lock", "tool", "--registry", f"oci:{cluster.folder}/mirror")
    entries = read(cluster.folder / "singfactory.lock")
    assert [entry.registry.rpartition("/")[2] for entry in entries] == ["images", "mirror"]


@pytest.mark.slow
def test_lock_drops_entries_only_when_asked_and_names_them(cluster: Cluster) -> None:
    cluster.ok("lock", "tool", "other")
    gone = locked(cluster)["tool:1.0-1"]
    said = cluster.ok("lock", "other", "--replace").err
    assert f"dropped tool:1.0-1, {gone.digest}\n" in said
    assert list(locked(cluster)) == ["other:1.0-1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [THESIS, "version = 1\n[[package]]\nname = 'numpy'\n", "format = 2\n", "{}", "<<<<<<< HEAD\nformat = 1\n"],
    ids=["text", "another tool's", "a newer format", "JSON", "a merge conflict"],
)
@pytest.mark.parametrize("option", [[], ["--replace"]])
def test_lock_overwrites_no_file_but_a_lock_file(cluster: Cluster, content: str, option: list[str]) -> None:
    path = cluster.folder / "notes"
    path.write_text(content)
    done = cluster.run("lock", "tool", "-o", "notes", *option)
    assert done.code == 8
    assert done.err.startswith(f"singfactory: {path} is in the way: it cannot be read as a lock file\n")
    assert done.err.endswith("  name another file with -o, or move this one\n")
    assert path.read_text() == content
    assert sorted(found.name for found in cluster.folder.glob("*notes*")) == ["notes"]


@pytest.mark.slow
def test_lock_updates_the_target_of_a_link_and_replaces_no_special_file(cluster: Cluster) -> None:
    (cluster.folder / "shared").mkdir()
    link, target = cluster.folder / "paper.lock", cluster.folder / "shared/paper.lock"
    link.symlink_to(target)
    cluster.ok("lock", "tool", "-o", "paper.lock")
    assert link.is_symlink()
    assert list(locked(cluster, "shared/paper.lock")) == ["tool:1.0-1"]
    os.mkfifo(cluster.folder / "pipe")
    done = cluster.run("lock", "tool", "-o", "pipe")
    assert (done.code, "cannot be read as a lock file" in done.err) == (8, True), done.err
    assert stat.S_ISFIFO((cluster.folder / "pipe").stat().st_mode)


@pytest.mark.slow
def test_lock_writes_an_empty_file_and_one_in_a_new_folder(cluster: Cluster) -> None:
    (cluster.folder / "empty").touch()
    for name in ("empty", "new/folder/paper.lock"):
        cluster.ok("lock", "tool", "-o", name)
        assert list(locked(cluster, name)) == ["tool:1.0-1"]


@pytest.mark.slow
def test_locks_at_the_same_time_keep_each_other_s_images(cluster: Cluster) -> None:
    names = ["tool", "other", *(f"more-{number}" for number in range(4))]
    for name in names[2:]:
        cluster.release(sif_of(name.encode()), name=name)
    processes = [cluster.start("lock", name) for name in names]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0] * len(names)
    assert set(locked(cluster)) == {f"{name}:1.0-1" for name in names}
    assert [path.name for path in cluster.folder.glob(".singfactory.lock*")] == []


@pytest.mark.slow
def test_pull_overwrites_no_other_file_unless_forced(cluster: Cluster) -> None:
    path = cluster.folder / "copy.sif"
    path.write_text(THESIS)
    done = cluster.run("pull", "tool", "-o", "copy.sif")
    assert done.code == 8
    assert done.err == (
        f"singfactory: {path} is in the way\n  it is another file\n  name another path, or replace it with --force\n"
    )
    assert path.read_text() == THESIS
    (cluster.folder / "empty").touch()
    cluster.ok("pull", "tool", "-o", "empty")
    assert (cluster.folder / "empty").read_bytes() == FIRST
    cluster.ok("pull", "tool", "-o", "copy.sif", "--force")
    assert path.read_bytes() == FIRST
    cluster.ok("pull", "tool", "-o", "copy.sif")
    cluster.release(SECOND)
    assert cluster.run("pull", "tool", "-o", "copy.sif").code == 8, "another image is another file"
    link = cluster.folder / "link.sif"
    link.symlink_to(path)
    assert "it is a symbolic link" in cluster.run("pull", "tool", "-o", "link.sif").err
    (cluster.folder / "images-here").mkdir()
    (cluster.folder / "images-here/tool-1.0-2.sif").write_text(THESIS)
    assert cluster.run("pull", "tool", "-o", "images-here").code == 8
    assert (path.read_bytes(), link.is_symlink()) == (FIRST, True)


@pytest.mark.slow
def test_record_appends_to_no_other_file(cluster: Cluster) -> None:
    script = cluster.folder / "train.py"
    script.write_text("print(1)")
    done = cluster.run("exec", "--record", "train.py", "tool", "true")
    assert (done.code, done.out) == (8, ""), "nothing was started"
    assert script.read_text() == "print(1)"
    (cluster.folder / "runs.jsonl").touch()
    for _ in range(2):
        cluster.ok("exec", "--record", "runs.jsonl", "tool", "true")
    with (cluster.folder / "runs.jsonl").open("a") as file:
        file.write('{"time": "2026-')  # what a full disk leaves
    cluster.ok("exec", "--record", "runs.jsonl", "tool", "true")
    *whole, cut, last = (cluster.folder / "runs.jsonl").read_text().splitlines()
    assert cut == '{"time": "2026-'
    assert [json.loads(line)["name"] for line in (*whole, last)] == ["tool"] * 3


def test_a_line_is_added_whatever_the_file_begins_with_unless_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for line in ("a", "b"):
        files.append_line(path, line)
    assert path.read_text() == "a\nb\n"
    with pytest.raises(PlaceUnusable, match="it has other contents"):
        files.append_line(path, "c", begins=b"b")
    files.append_line(path, "c", begins=b"a")
    assert path.read_text() == "a\nb\nc\n"


@pytest.mark.slow
def test_logins_that_cannot_be_read_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    credentials.login(path, "a.org", "u", "p")
    before = path.read_bytes()
    path.chmod(0)
    program = f"from factory.registry import credentials as c; c.login(c.Path({str(path)!r}), 'b.org', 'u', 'p')"
    command = [*ORDINARY, sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert "factory.errors.NotPermitted" in done.stderr
    path.chmod(0o600)
    assert path.read_bytes() == before


def test_a_build_replaces_no_image_that_no_build_made(tmp_path: Path) -> None:
    require_folder(tmp_path)
    (tmp_path / "image.sif").write_bytes(b"by hand")
    with pytest.raises(PlaceUnusable, match="it was not built here"):
        require_folder(tmp_path)
    (tmp_path / "build.log").touch()
    require_folder(tmp_path)

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.errors import Busy
from factory.io import files, trees
from factory.io.below import Folder
from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.store import gc, leases, tags
from factory.store import store as store_module
from factory.store.gc import Rules, Verdict, collect
from factory.store.leases import Job, Queue
from factory.store.record_files import read_refs
from factory.store.seeds import remember
from factory.store.store import Store
from factory.store.verify import verify
from tests.unit.store.stored import DAY, end, image, line_of, put, python, tree, use

MONTH = 30 * DAY
LATER = 10 * DAY  # so much later than the images came


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    end(started)


def run(
    store: Store, *, after: float = LATER, dry_run: bool = False, queue: Queue | None = None, **rules: Any
) -> tuple[Verdict, ...]:
    made = Rules(**rules)
    return collect(store, made, queue=queue, dry_run=dry_run, progress=Silent(), now=time.time() + after)


def why(verdicts: tuple[Verdict, ...], *, keep: bool) -> dict[str, str]:
    return {verdict.name: verdict.why for verdict in verdicts if verdict.keep is keep}


def names_in(store: Store) -> set[str]:
    return {f"{known.recipe}:{tag}" for tag, known in store.images()}


def test_what_a_tag_names_stays_and_what_none_names_goes(store: Store) -> None:
    put(store, b"tagged", "tool", "1-1", "latest")
    old = put(store, b"superseded")
    told = run(store)
    assert why(told, keep=True) == {"tool:1-1, tool:latest": "tagged tool:1-1, tool:latest"}
    assert why(told, keep=False) == {old.short: "no tag names it"}
    assert [(one.size, one.freed) for one in told if not one.keep] == [(10, 10)]
    assert not store.blob(old).exists()
    assert names_in(store) == {"tool:1-1", "tool:latest"}
    assert verify(store, Silent()) == (1, ())


def test_a_dry_run_reports_the_same_and_changes_nothing(store: Store) -> None:
    put(store, b"tagged", "tool", "1-1")
    put(store, b"superseded")
    use(store, Digest.of(b"tagged"), 400)
    use(store, Digest.of(b"tagged"), 300, "e" * 12)
    (store.root / "partial" / "rest").write_text("rest")
    before = tree(store.root)
    told = run(store, dry_run=True, older_than=MONTH, after=40 * DAY)
    assert tree(store.root) == before
    assert [verdict.keep for verdict in told].count(False) == 4
    assert [verdict.path for verdict in run(store, older_than=MONTH, after=40 * DAY)] == [one.path for one in told]


def test_a_store_that_does_not_exist_stays_so(store: Store) -> None:
    assert run(store) == ()
    assert not store.root.exists()


def test_what_came_or_was_used_within_the_grace_period_stays(store: Store) -> None:
    digest = put(store, b"superseded")
    assert why(run(store, after=0.5 * DAY), keep=True) == {digest.short: "used 12 h ago"}
    assert why(run(store, after=2 * DAY, grace=3 * DAY), keep=True) == {digest.short: "used 2 days ago"}
    leases.take(store.root, digest, process=False)
    assert why(run(store, after=0.1 * DAY), keep=True) == {digest.short: "used 2 h ago"}
    assert why(run(store, after=1, grace=0), keep=False) == {digest.short: "no tag names it"}


def test_a_link_protects_an_image_whose_record_is_broken(store: Store) -> None:
    digest = put(store, b"tagged", "tool", "1-1")
    (store.root / "refs" / "tool.json").write_text("{")
    assert why(run(store), keep=False) == {}
    assert store.blob(digest).exists()


def test_a_record_protects_an_image_whose_links_are_gone(store: Store) -> None:
    digest = put(store, b"tagged", "tool", "1-1")
    trees.remove_tree(store.root / "images")
    assert why(run(store), keep=False) == {}
    assert store.blob(digest).exists()


def test_what_a_living_process_uses_stays_whatever_is_chosen(
    store: Store, processes: list[subprocess.Popen[str]]
) -> None:
    digest = put(store, b"image", "tool", "1-1")
    code = "import os, sys; from pathlib import Path; from factory.oci.digest import Digest\n"
    code += "from factory.store import leases\nleases.take(Path(sys.argv[1]), Digest.of(b'image'))\n"
    code += "os.execvp('sh', ['sh', '-c', 'echo ready; read line'])"
    processes.append(python(code, str(store.root)))
    assert line_of(processes[0]) == "ready"
    rules: dict[str, Any] = {"older_than": MONTH, "max_size": 1, "keep": 0}
    told = why(run(store, after=1000 * DAY, **rules), keep=True)
    assert told["tool:1-1"].startswith(f"in use by process {processes[0].pid} of user ")
    processes[0].kill()
    processes[0].wait()
    assert why(run(store, after=1000 * DAY, **rules), keep=False)["tool:1-1"] == "last used 1000 days ago"
    assert not store.blob(digest).exists()


def test_what_a_job_elsewhere_uses_stays_until_slurm_has_forgotten_it(store: Store) -> None:
    digest = put(store, b"image")
    leases.take(store.root, digest, Job("7", "big"), process=False)
    assert (
        "SLURM job 7" in why(run(store, queue=Queue("big", frozenset({"7"})), after=99 * DAY), keep=True)[digest.short]
    )
    assert why(run(store, queue=None, after=2 * DAY), keep=False) == {}
    assert digest.short in why(run(store, queue=Queue("big", frozenset()), after=2 * DAY), keep=False)


def test_what_a_lock_file_names_stays(store: Store) -> None:
    digest = put(store, b"image")
    assert why(run(store, locked={digest: "paper.lock"}), keep=True) == {digest.short: "locked by paper.lock"}


def test_max_size_takes_the_least_recently_used_first(store: Store) -> None:
    for number, days_ago in ((1, 5), (2, 30), (3, 10), (4, 20)):
        use(store, put(store, bytes([number]) * 1000, "tool", f"1-{number}"), days_ago - 40)

    def forgotten(**rules: Any) -> dict[str, str]:
        return why(run(store, after=40 * DAY, dry_run=True, **rules), keep=False)

    assert forgotten(max_size=2500) == {
        "tool:1-2": "to get below 2 kB; last used 30 days ago",
        "tool:1-4": "to get below 2 kB; last used 20 days ago",
    }
    assert forgotten(max_size=4000) == {}
    assert sorted(forgotten(max_size=2500, keep=3)) == ["tool:1-2"], "--keep spares the three that were used last"
    assert sorted(forgotten(keep=1)) == ["tool:1-2", "tool:1-3", "tool:1-4"]
    assert sorted(forgotten(keep=1, older_than=15 * DAY)) == ["tool:1-2", "tool:1-4"]
    assert sorted(forgotten(older_than=15 * DAY, max_size=1500)) == ["tool:1-2", "tool:1-3", "tool:1-4"]


def test_a_forgotten_image_takes_its_tags_along_and_leaves_the_others(store: Store) -> None:
    put(store, b"old", "tool", "1-1")
    young = put(store, b"young", "tool", "1-2", "latest")
    leases.take(store.root, young, process=False)
    os.utime(next((store.root / "leases").iterdir()), (time.time() + 39 * DAY,) * 2)
    assert sorted(why(run(store, older_than=MONTH, after=40 * DAY), keep=False)) == ["tool:1-1"]
    assert [tag for tag, _ in read_refs(store.root, "tool")] == ["1-2", "latest"]
    assert sorted(path.name for path in (store.root / "images" / "tool").iterdir()) == ["1-2", "latest"]
    run(store, older_than=MONTH, after=99 * DAY)
    assert not (store.root / "refs" / "tool.json").exists()
    assert list((store.root / "images" / "tool").iterdir()) == []


def test_old_partial_and_quarantined_files_are_removed(store: Store) -> None:
    put(store, b"image", "tool", "1-1")
    (store.root / "quarantine").mkdir()
    for place in ("partial/" + "a" * 64 + ".0", "partial/.adopt.1.ff", "quarantine/x.sif", "refs/.tool.json.1.ff"):
        (store.root / place).write_bytes(b"12345")
    assert why(run(store, after=0.5 * DAY), keep=False) == {}
    told = run(store)
    assert sum(verdict.freed for verdict in told) == 20
    assert why(told, keep=False) == {
        "a" * 12: "unfinished, 10 days old",
        ".adopt.1.ff": "unfinished, 10 days old",
        "x.sif": "quarantined, 10 days old",
        ".tool.json.1": "unfinished, 10 days old",
    }
    assert not any(store.root.glob("partial/*"))
    assert not any(store.root.glob("quarantine/*"))


def test_chunk_indexes_go_with_their_images_and_nothing_else_in_their_folder_stops_it(store: Store) -> None:
    here = put(store, b"here", "tool", "1-1")
    for digest in (here, Digest.of(b"gone")):
        remember(store, digest, b"index")
    (store.root / "chunks/folder").mkdir()
    verdicts = run(store, grace=0)
    assert (store.root / "chunks" / f"{here.hex}.chunks").exists()
    assert sorted(path.name for path in (store.root / "chunks").iterdir()) == sorted(["folder", f"{here.hex}.chunks"])
    assert why(verdicts, keep=True)["folder"] == "this user may not remove it"


@pytest.mark.parametrize("name", ["chunks", "partial"])
def test_a_link_in_the_place_of_a_folder_leads_nowhere(store: Store, tmp_path: Path, name: str) -> None:
    put(store, b"here", "tool", "1-1")
    thesis = tmp_path / "work/thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years")
    if (store.root / name).exists():
        (store.root / name).rmdir()
    (store.root / name).symlink_to(thesis.parent)
    run(store, grace=0)
    assert thesis.read_text() == "years"


def test_temporary_files_of_living_processes_are_left_alone_without_a_grace_period_too(store: Store) -> None:
    put(store, b"image", "tool", "1-1")
    (store.root / "refs" / ".tool.json.1.ff").write_text("being written")
    assert why(run(store, after=60, grace=0), keep=False) == {}


def test_only_the_newest_record_of_a_use_is_kept(store: Store) -> None:
    digest = put(store, b"image", "tool", "1-1")
    old, new = use(store, digest, 50, "a" * 12), use(store, digest, 40, "b" * 12)
    gone = use(store, Digest.of(b"gone"), 40)
    run(store)
    assert (old.exists(), new.exists(), gone.exists()) == (False, True, False)


def test_freeing_a_file_with_a_second_name_frees_nothing(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"image")
    os.link(store.blob(digest), tmp_path / "mine.sif")
    assert [(one.size, one.freed) for one in run(store)] == [(5, 0)]
    assert (tmp_path / "mine.sif").read_bytes() == b"image"


HOLDS = """
import sys
from pathlib import Path
from typing import Any
from factory.oci.digest import Descriptor
from factory.io.progress import Silent
from factory.store.store import Store
from tests.unit.store.stored import ingest
def fetch(offset):
    yield b"ima"
    print("fetching", flush=True)
    sys.stdin.readline()
    yield b"ge"
ingest(Store(Path(sys.argv[1])), Descriptor.of("a/b", b"image"), fetch, Silent())
print("done", flush=True)
"""


def test_an_image_that_is_being_pulled_is_left_alone(store: Store, processes: list[subprocess.Popen[str]]) -> None:
    digest = Digest.of(b"image")
    store.root.mkdir()
    processes.append(python(HOLDS, str(store.root)))
    assert line_of(processes[0]) == "fetching"
    put_aside = store.root / "blobs" / "sha256" / digest.hex[:2] / f"{digest.hex}.sif"
    put_aside.parent.mkdir(parents=True)
    put_aside.write_bytes(b"cut")  # what a file system has cut short, and the pull is about to replace
    for dry_run in (True, False):
        told = why(run(store, grace=0, after=30, dry_run=dry_run), keep=True)
        assert told[digest.short].startswith(f"being fetched by process {processes[0].pid}")
        assert told[digest.hex[:12]].startswith("being fetched by")
    assert processes[0].stdin is not None
    processes[0].stdin.write("\n")
    processes[0].stdin.flush()
    assert line_of(processes[0]) == "done"
    assert store.blob(digest).read_bytes() == b"image"
    assert verify(store, Silent()) == (1, ())


def test_an_image_that_comes_into_use_at_the_last_moment_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(store, b"image", "tool", "1-1")
    rename = Folder.rename

    def rename_then_exec(folder: Folder, name: str, to: Folder, new: str) -> None:
        rename(folder, name, to, new)
        if new.endswith(".removed"):
            leases.take(store.root, digest)
            assert not store.blob(digest).exists(), "exec sees that it is gone, and asks for it again"

    monkeypatch.setattr(Folder, "rename", rename_then_exec)
    told = why(run(store, older_than=DAY), keep=True)
    assert told["tool:1-1"].startswith("in use by process")
    assert store.blob(digest).read_bytes() == b"image"


def test_an_image_is_never_away_when_its_user_has_a_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(store, b"image", "tool", "1-1")
    names = tags.names
    seen: list[bytes] = []

    def use_image() -> None:
        store.lease(digest)
        seen.append(store.blob(digest).read_bytes())

    user = threading.Thread(target=use_image)

    def names_while_a_user_begins(root: Path) -> dict[str, set[tuple[str, str]]]:
        if user.ident is None and not store.blob(digest).exists():  # gc has moved it aside
            user.start()
            while not leases.read(root):
                time.sleep(0.01)
            user.join(0.2)
        return names(root)

    monkeypatch.setattr(tags, "names", names_while_a_user_begins)
    assert why(run(store, older_than=DAY), keep=True)["tool:1-1"].startswith("in use by process")
    user.join(10)
    assert seen == [b"image"]


def test_a_lock_that_a_killed_process_left_makes_no_user_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(store, b"image", "tool", "1-1")
    left = store.root / "locks" / f"{digest.hex}.lock"
    left.parent.mkdir(exist_ok=True)
    left.write_text("{}")
    waited: list[float] = []
    monkeypatch.setattr(store_module, "_GC_TIMEOUT", 0.3)
    monkeypatch.setattr(store_module, "_POLL", 0.05)
    sleep = time.sleep

    def counted(seconds: float) -> None:
        waited.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", counted)
    store.lease(digest)
    assert waited, "its holder may be alive"
    waited.clear()
    minutes_ago = time.time() - 300
    os.utime(left, (minutes_ago, minutes_ago))
    store.lease(digest)
    assert not waited


def test_an_image_that_comes_into_use_after_the_plan_keeps_its_file_and_tags(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put(store, b"image", "tool", "1-1")
    plan = gc._Collector.plan  # noqa: SLF001

    def plan_then_use(self: gc._Collector) -> Iterator[Verdict]:
        verdicts = list(plan(self))
        os.utime(use(store, digest, 0), (time.time() + LATER,) * 2)
        yield from verdicts

    monkeypatch.setattr(gc._Collector, "plan", plan_then_use)  # noqa: SLF001
    assert why(run(store, older_than=DAY), keep=True) == {"tool:1-1": "used just now"}
    assert names_in(store) == {"tool:1-1"}


def test_an_image_that_is_tagged_in_the_last_moment_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(store, b"image")
    rename = Folder.rename

    def rename_then_tag(folder: Folder, name: str, to: Folder, new: str) -> None:
        rename(folder, name, to, new)
        if new.endswith(".removed"):
            monkeypatch.setattr(Folder, "rename", rename)
            assert not store.blob(digest).exists()
            store.record(image(b"image", "tool", "1-1"), ["1-1"])

    monkeypatch.setattr(Folder, "rename", rename_then_tag)
    assert why(run(store), keep=True) == {digest.short: "tagged just now"}
    assert names_in(store) == {"tool:1-1"}


def test_a_record_that_cannot_be_changed_keeps_the_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(store, b"image", "tool", "1-1")
    put(store, b"another", "tool", "1-2")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(tags, "write_refs", refuse)
    told = run(store, keep=1)
    assert "this user may not remove it" in why(told, keep=True).values()
    assert store.blob(digest).exists()
    assert len(names_in(store)) == 2


def test_a_planted_lease_neither_ends_the_collection_nor_gives_its_image_away(store: Store) -> None:
    digest = put(store, b"image")
    leases.take(store.root, digest)
    (path,) = (store.root / "leases").iterdir()
    path.unlink()
    path.symlink_to("/etc/passwd")
    other = put(store, b"another image")
    run(store, after=3 * DAY)
    assert store.blob(digest).exists()
    assert not store.blob(other).exists()


def test_two_collections_do_not_work_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, b"image")
    monkeypatch.setattr(gc, "_WAIT", 0.3)
    (store.root / "locks" / "gc.lock").write_text('{"host":"elsewhere","pid":1,"user":0,"token":"x"}')
    with pytest.raises(Busy, match="gave up waiting for process 1 of user 0 on elsewhere"):
        run(store)


DIES = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from factory.io.below import Folder
from factory.io.progress import Silent
from factory.store import gc, tags
from factory.store.store import Store
left = int(sys.argv[2])
def counted(call):
    def wrapped(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return wrapped
for name in ("rename", "remove"):
    setattr(Folder, name, counted(getattr(Folder, name)))
rules = gc.Rules(older_than=86400.0)
gc.collect(Store(Path(sys.argv[1])), rules, queue=None, dry_run=False, progress=Silent(), now=time.time() + 864000)
"""


@pytest.mark.slow
def test_a_collection_that_is_killed_at_any_step_leaves_the_store_whole(tmp_path: Path) -> None:
    steps = 0
    while True:
        store = Store(tmp_path / str(steps))
        put(store, b"image", "tool", "1-1", "latest")
        put(store, b"superseded")
        used = put(store, b"used", "tool", "1-2")
        leases.take(store.root, used)
        process = python(DIES, str(store.root), str(steps))
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL)
        count, wrong = verify(store, Silent())
        assert wrong == ()
        assert 1 <= count <= 3
        assert store.blob(used).exists()
        assert "tool:1-2" in names_in(store)
        assert all(store.holds(known) for _, known in store.images())
        run(store, older_than=DAY)
        run(store, older_than=DAY, after=LATER + 2 * DAY)
        assert names_in(store) == {"tool:1-2"}
        assert [digest for digest, _ in store.blobs()] == [used]
        assert list(store.leftovers()) == []
        if process.returncode == 0:
            break
        steps += 1
    assert steps > 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")
def test_a_user_removes_own_images_only_and_names_stay_for_the_others() -> None:
    store = Store(Path("/var/tmp") / f"singfactory-gc-test.{os.getpid()}")
    try:
        digest = put(store, b"root's", "tool", "1-1")
        (store.root / "leases").mkdir()
        for folder in (store.root, *(path for path in store.root.rglob("*") if path.is_dir())):
            folder.chmod(0o1777)
        child = os.fork()
        if child == 0:
            os.setgid(files.NOBODY)
            os.setuid(files.NOBODY)
            code = 1
            try:
                mine = put(store, b"nobody's")
                told = run(store, older_than=DAY)
                right = why(told, keep=True)["tool:1-1"] == "this user may not remove it"
                code = 0 if right and not store.blob(mine).exists() else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert names_in(store) == {"tool:1-1"}
        assert store.blob(digest).exists()
    finally:
        trees.remove_tree(store.root)


PULLS = """
import sys, time
from pathlib import Path
from factory.oci.digest import Descriptor
from factory.io.progress import Silent
from factory.store.store import Store
from tests.unit.store.stored import image, ingest
store, content = Store(Path(sys.argv[1])), b"image" * 100
wanted = Descriptor.of("a/b", content)
until = time.monotonic() + 3
while time.monotonic() < until:
    store.lease(wanted.digest)
    path, _ = ingest(store, wanted, lambda offset: [content[offset:]], Silent())
    store.record(image(content, "tool", "1-1"), ["1-1"])
    assert path.read_bytes() == content, "it has its lease, and looked afterwards"
    for lease in (store.root / "leases").glob("*.json"):
        lease.unlink(missing_ok=True)
print("well")
"""


@pytest.mark.slow
def test_pulls_and_collections_at_once_never_take_an_image_from_who_uses_it(
    store: Store, processes: list[subprocess.Popen[str]]
) -> None:
    store.root.mkdir()
    processes.append(python(PULLS, str(store.root)))
    removed = 0
    while processes[0].poll() is None:
        told = run(store, after=0, grace=0, keep=0)
        removed += "tool:1-1" in why(told, keep=False) or Digest.of(b"image" * 100).short in why(told, keep=False)
    assert line_of(processes[0]) == "well"
    assert removed > 0, "they met"
    assert verify(store, Silent())[1] == ()

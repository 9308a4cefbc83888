from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import FactoryError, IntegrityFailure, NoRoom, NotFound, NotPermitted, RegistryFailure, UsageError
from factory.io import files, trees
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference
from factory.store.fetch import partial as partial_module
from factory.store.record_files import read_refs, write_refs
from factory.store.records import Records
from factory.store.refs import StoredImage
from factory.store.store import Store
from factory.store.verify import verify
from tests.unit.store.stored import ANOTHER, ingest, run_as_another

CONTENT = bytes(range(256)) * 400
WANTED = Descriptor.of("application/vnd.sylabs.sif.layer.v1.sif", CONTENT)
WRONG = b"?" + CONTENT[1:]
BLOCK = 10_000


class Source:
    """A fake registry for ingest: serves its contents in turn, and records the requests."""

    def __init__(self, *contents: bytes, breaks_after: int | None = None) -> None:
        self.contents = list(contents or [CONTENT])
        self.breaks_after = breaks_after
        self.offsets: list[int] = []

    def __call__(self, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        for at in range(offset, len(content), BLOCK):
            if self.breaks_after is not None and at >= self.breaks_after:
                raise RegistryFailure("the connection broke")
            yield content[at : at + BLOCK]


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = 0
        self.steps: list[str] = []

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:  # noqa: ARG002
        self.steps.append(f"{label} {total}")
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self) -> None:
        self.steps.append("end")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def image(content: bytes = CONTENT, **changed: object) -> StoredImage:
    usual = StoredImage(
        recipe="pytorch-2.1",
        tag="2.1.2-3",
        registry="ghcr.io/org/images",
        digest=Digest.of(b"manifest" + content[:10]),
        sif_digest=Digest.of(content),
        size=len(content),
        pulled="2024-05-01T10:00:00Z",
        gpu="nvidia",
        env={"A": "b"},
        binds=("/dataset",),
    )
    return replace(usual, **changed)  # type: ignore[arg-type]


def put(store: Store, content: bytes = CONTENT) -> Path:
    return ingest(store, Descriptor.of("a/b", content), Source(content), Silent())[0]


def everything_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def partial_of(store: Store, wanted: Descriptor = WANTED) -> Path:
    """Return the path of an unfinished download, whether it exists or not."""
    name = f"{wanted.digest.hex}.{os.getuid()}."
    there = sorted((store.root / "partial").glob(f"{name}*"))
    return there[0] if there else store.root / "partial" / f"{name}earlier"


def test_a_blob_is_ingested_under_its_digest_and_nothing_else_is_left(store: Store) -> None:
    source, heard = Source(), Heard()
    path, fetched = ingest(store, WANTED, source, heard)
    assert path == store.root / "blobs" / "sha256" / WANTED.digest.hex[:2] / f"{WANTED.digest.hex}.sif"
    assert path.read_bytes() == CONTENT
    assert fetched == len(CONTENT)
    assert source.offsets == [0]
    assert everything_in(store.root) == {str(path.relative_to(store.root))}
    assert (heard.steps, heard.done, heard.notes) == ([f"pull {len(CONTENT)}", "end"], len(CONTENT), [])


def test_a_blob_that_is_there_is_not_fetched_and_nothing_is_written(store: Store) -> None:
    put(store)
    before = everything_in(store.root)
    source = Source()
    assert ingest(store, WANTED, source, Silent()) == (store.blob(WANTED.digest), 0)
    assert source.offsets == []
    assert everything_in(store.root) == before


def under(umask: int, store: Store) -> tuple[int, set[int], int]:
    """Store and record an image. Returns the modes of its file, of the folders, and of the record."""
    before = os.umask(umask)
    try:
        path = put(store)
        store.record(image(), ["latest"])
    finally:
        os.umask(before)
    folders = [entry for entry in store.root.rglob("*") if entry.is_dir()]
    record = store.root / "refs" / "pytorch-2.1.json"
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, *folders, record)]
    return modes[0], set(modes[1:-1]), modes[-1]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077, 0o777])
@pytest.mark.parametrize("root", [None, 0o755, 0o700])
def test_in_a_users_own_store_the_umask_decides_who_may_read_an_image(
    store: Store, umask: int, root: int | None
) -> None:
    left = ~(umask & 0o077)
    if root is not None:
        store.root.mkdir()
        store.root.chmod(root)
    folder = 0o755 if root is None else root
    assert under(umask, store) == (0o444 & left, {folder & left}, 0o644 & left)


def test_folders_that_the_umask_closed_stay_closed(store: Store) -> None:
    store.root.mkdir(mode=0o755)
    under(0o077, store)
    assert under(0o022, store)[1] == {0o700}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o2775, 0o2770, 0o1777])
def test_in_a_shared_store_the_folder_decides_who_may_read_an_image(store: Store, umask: int, mode: int) -> None:
    store.root.mkdir()
    store.root.chmod(mode)
    assert under(umask, store) == (0o444, {mode}, 0o644)


def test_a_pull_into_a_shared_store_says_that_the_umask_does_not_apply(store: Store) -> None:
    store.root.mkdir()
    store.root.chmod(0o2775)
    notice = f"{store.root} is a shared store: its files are as open as that folder, despite your umask"
    for umask, notes in ((0o022, []), (0o077, [notice])):
        heard = Heard()
        before = os.umask(umask)
        try:
            ingest(store, Descriptor.of("a/b", CONTENT + bytes([umask])), Source(CONTENT + bytes([umask])), heard)
        finally:
            os.umask(before)
        assert heard.notes == notes


@pytest.mark.parametrize("mode", [0o2775, 0o700, 0o1777])
def test_a_store_whose_folder_is_shared_shares_what_is_below_it(store: Store, mode: int) -> None:
    store.root.mkdir()
    store.root.chmod(mode)
    put(store)
    store.record(image(), ["latest"])
    folders = [entry for entry in store.root.rglob("*") if entry.is_dir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {mode}


def test_the_order_is_bytes_then_sync_then_rename_then_sync_of_the_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} {stat.S_IMODE(found.st_mode):o}")
        fsync(descriptor)

    def note_rename(source: str, target: str, **named: int) -> None:
        steps.append("rename")
        replace(source, target, **named)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    put(store)
    assert [step for step in steps if step != "folder"] == [f"{len(CONTENT)} 444", "rename"]
    assert steps[-2:] == ["rename", "folder"]


def test_a_broken_fetch_is_continued_from_where_it_broke(store: Store) -> None:
    with pytest.raises(RegistryFailure, match="the connection broke"):
        ingest(store, WANTED, Source(breaks_after=3 * BLOCK), Silent())
    assert not store.usable(WANTED)
    assert list(store.leftovers()) == [partial_of(store)]
    source, heard = Source(), Heard()
    path, fetched = ingest(store, WANTED, source, heard)
    assert source.offsets == [3 * BLOCK]
    assert fetched == len(CONTENT) - 3 * BLOCK
    assert heard.done == len(CONTENT)
    assert path.read_bytes() == CONTENT
    assert list(store.leftovers()) == []


def test_a_complete_leftover_is_hashed_and_not_fetched_again(store: Store) -> None:
    files.make_folder(store.root / "partial")
    partial_of(store).write_bytes(CONTENT)
    source = Source()
    assert ingest(store, WANTED, source, Silent())[1] == 0
    assert source.offsets == []
    assert store.blob(WANTED.digest).read_bytes() == CONTENT


def test_wrong_bytes_in_a_leftover_cost_one_clean_fetch(store: Store) -> None:
    files.make_folder(store.root / "partial")
    partial_of(store).write_bytes(b"x" * 5000)
    source, heard = Source(), Heard()
    path, fetched = ingest(store, WANTED, source, heard)
    assert source.offsets == [5000, 0]
    assert (path.read_bytes(), fetched) == (CONTENT, 2 * len(CONTENT) - 5000)
    assert heard.notes == ["the digest is wrong; fetching the image once more"]


def test_a_partial_file_longer_than_the_image_is_started_again(store: Store) -> None:
    files.make_folder(store.root / "partial")
    partial_of(store).write_bytes(CONTENT + b"x")
    source = Source()
    assert ingest(store, WANTED, source, Silent())[0].read_bytes() == CONTENT
    assert source.offsets == [0]


@pytest.mark.parametrize("first", [WRONG, CONTENT[:-1], CONTENT + b"x", b"", CONTENT * 3])
def test_wrong_bytes_once_are_fetched_again_from_the_start(store: Store, first: bytes) -> None:
    source = Source(first, CONTENT)
    assert ingest(store, WANTED, source, Silent())[0].read_bytes() == CONTENT
    assert source.offsets == [0, 0]
    assert list(store.leftovers()) == []


@pytest.mark.parametrize("wrong", [WRONG, CONTENT[:-1], CONTENT + b"x", b""])
def test_wrong_bytes_twice_are_an_integrity_failure_and_leave_nothing(store: Store, wrong: bytes) -> None:
    source = Source(wrong)
    with pytest.raises(IntegrityFailure):
        ingest(store, WANTED, source, Silent())
    assert source.offsets == [0, 0]
    assert everything_in(store.root) == set()
    assert list(store.blobs()) == []


def test_an_endless_body_is_cut_at_the_size_of_the_image(store: Store) -> None:
    sent = 0

    def endless(_: int) -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += BLOCK
            yield b"x" * BLOCK

    with pytest.raises(IntegrityFailure, match="longer"):
        ingest(store, WANTED, endless, Silent())
    assert sent <= 2 * (len(CONTENT) + 2 * BLOCK)
    assert everything_in(store.root) == set()


def test_an_empty_blob_is_a_blob(store: Store) -> None:
    assert put(store, b"").read_bytes() == b""


def test_too_little_space_is_reported_before_anything_is_fetched(store: Store) -> None:
    huge = Descriptor("a/b", WANTED.digest, 10**17)
    source = Source()
    with pytest.raises(NoRoom, match="to pull the image") as caught:
        ingest(store, huge, source, Silent())
    assert "100000.0 TB needed" in caught.value.why
    assert source.offsets == []


def test_a_disk_that_fills_in_the_middle_keeps_what_came_and_the_other_images(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = put(store, b"another image")

    def full(_: int) -> Iterator[bytes]:
        yield CONTENT[: 2 * BLOCK]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "BLOCK", BLOCK)
    with pytest.raises(NoRoom, match="no space left to write"):
        ingest(store, WANTED, full, Silent())
    assert other.read_bytes() == b"another image"
    assert not store.usable(WANTED)
    source = Source()
    assert ingest(store, WANTED, source, Silent())[0].read_bytes() == CONTENT
    assert source.offsets == [2 * BLOCK]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_was_planted_in_place_of_a_partial_file_is_refused_and_left_as_evidence(
    store: Store, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    files.make_folder(store.root / "partial")
    if kind == "pipe":
        os.mkfifo(partial_of(store))
    elif kind == "link":
        partial_of(store).symlink_to(victim)
    else:
        partial_of(store).hardlink_to(victim)
    source = Source()
    with pytest.raises(IntegrityFailure, match="refused") as caught:
        ingest(store, WANTED, source, Silent())
    assert caught.value.why == f"it belongs to user id {os.getuid()}"
    assert source.offsets == []
    assert victim.read_text() == "precious"
    assert os.path.lexists(partial_of(store))


def test_what_was_planted_in_place_of_a_lock_is_refused(store: Store, tmp_path: Path) -> None:
    files.make_folder(store.root / "locks")
    (store.root / "locks" / f"{WANTED.digest.hex}.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(IntegrityFailure, match="not a regular file"):
        put(store)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("kind", ["link to the right bytes", "dangling link", "wrong size"])
def test_what_was_planted_in_place_of_a_blob_is_not_taken_for_it_and_not_written_through(
    store: Store, tmp_path: Path, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    path = store.blob(WANTED.digest)
    files.make_folder(path.parent)
    if kind == "wrong size":
        path.write_bytes(CONTENT[:-1])
    else:
        path.symlink_to(elsewhere)
    if kind == "link to the right bytes":
        elsewhere.write_bytes(CONTENT)
    assert not store.usable(WANTED)
    put(store)
    assert not path.is_symlink()
    assert path.read_bytes() == CONTENT
    assert elsewhere.exists() == (kind == "link to the right bytes")


def test_a_link_is_not_taken_for_a_blob_even_when_its_own_size_is_right(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("whatever")
    target = str(tmp_path / "elsewhere")
    wanted = Descriptor.of("a/b", b"x" * len(target))
    files.make_folder(store.blob(wanted.digest).parent)
    store.blob(wanted.digest).symlink_to(target)
    assert not store.usable(wanted)


INGEST = """
import sys, time
from pathlib import Path
from factory.oci.digest import Descriptor
from factory.io.progress import Silent
from factory.store.store import Store
from tests.unit.store.stored import ingest
content = bytes(range(256)) * 400
def fetch(offset):
    with open(sys.argv[2], "a") as log:
        log.write(f"{offset}\\n")
    yield content[offset:20000]
    time.sleep(float(sys.argv[3]))
    yield content[20000:]
print("started", flush=True)
path, fetched = ingest(Store(Path(sys.argv[1])), Descriptor.of("a/b", content), fetch, Silent())
print(fetched)
"""


def start_ingest(store: Store, log: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INGEST, str(store.root), str(log), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_many_processes_that_want_the_same_image_one_fetches_it(store: Store, tmp_path: Path) -> None:
    processes = [start_ingest(store, tmp_path / "log", 0.3) for _ in range(4)]
    told = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(told) == [["started", "0"]] * 3 + [["started", str(len(CONTENT))]]
    assert (tmp_path / "log").read_text() == "0\n"
    assert everything_in(store.root) == {str(store.blob(WANTED.digest).relative_to(store.root))}
    assert verify(store, Silent()) == (1, ())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_pull_left_is_continued_by_the_next(store: Store, tmp_path: Path, end: signal.Signals) -> None:
    process = start_ingest(store, tmp_path / "log", 60)
    deadline = time.monotonic() + 20
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(end)
    process.communicate(timeout=20)
    assert not store.usable(WANTED)
    # What was in memory only is lost with the process, never what is on disk.
    kept = partial_of(store).stat().st_size
    assert 0 < kept <= 20_000
    source = Source()
    started = time.monotonic()
    path, fetched = ingest(store, WANTED, source, Silent())
    assert time.monotonic() - started < 30  # the killed process would have slept for 60 s
    assert (source.offsets, fetched) == ([kept], len(CONTENT) - kept)
    assert path.read_bytes() == CONTENT
    assert verify(store, Silent()) == (1, ())


def test_a_store_that_may_only_be_read_serves_what_it_has() -> None:
    store = Store(Path("/var/tmp") / f"singfactory-store-test.{os.getpid()}")
    try:
        put(store)
        store.record(image(), ["latest"])
        for folder in [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]:
            folder.chmod(0o555)
        run_as_another(lambda: read_only_use(store))
    finally:
        trees.remove_tree(store.root)


def read_only_use(store: Store) -> None:
    assert ingest(store, WANTED, Source(), Silent())[1] == 0
    store.record(image(pulled="2025-01-01T00:00:00Z"), ["latest"])
    assert store.find(Reference.parse("pytorch-2.1")).tag == "2.1.2-3"
    with pytest.raises(NotPermitted):
        store.record(image(), ["another"])
    with pytest.raises(NotPermitted):
        put(store, b"another")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")
def test_two_users_share_a_store_whose_folder_is_open_to_their_group() -> None:
    root = Path("/var/tmp") / f"singfactory-shared-test.{os.getpid()}"
    root.mkdir()
    os.chown(root, -1, ANOTHER)
    root.chmod(0o2775)
    store = Store(root)
    try:
        put(store)
        store.record(image(), ["latest"])
        run_as_another(lambda: use_as_second(store))
        assert store.find(Reference.parse("pytorch-2.1:second")).size == 6
        assert verify(store, Silent()) == (2, ())
    finally:
        trees.remove_tree(root)


def use_as_second(store: Store) -> None:
    assert ingest(store, WANTED, Source(), Silent())[1] == 0
    put(store, b"second")
    store.record(image(b"second"), ["second"])


def test_a_recorded_image_is_linked_relatively_and_found_by_name(store: Store, tmp_path: Path) -> None:
    put(store)
    store.record(image(), ["latest", "2.1.2-3"])
    for tag in ("latest", "2.1.2-3"):
        link = store.root / "images" / "pytorch-2.1" / tag
        assert link.is_symlink()
        assert not os.path.isabs(link.readlink())  # noqa: PTH117 - the text of the link is what is meant
        assert link.read_bytes() == CONTENT
    assert list((store.root / "locks").iterdir()) == []
    moved = tmp_path / "moved"
    store.root.rename(moved)
    assert (moved / "images" / "pytorch-2.1" / "latest").read_bytes() == CONTENT
    assert Store(moved).find(Reference.parse("pytorch-2.1")) == image()


def test_a_tag_moves_to_another_image_and_the_old_one_stays_under_its_own(store: Store) -> None:
    put(store)
    put(store, b"newer")
    newer = image(b"newer", tag="2.1.2-4", pulled="2024-06-01T10:00:00Z")
    store.record(image(), ["latest", "2.1.2-3"])
    store.record(newer, ["latest", "2.1.2-4"])
    folder = store.root / "images" / "pytorch-2.1"
    assert (folder / "latest").read_bytes() == b"newer"
    assert (folder / "2.1.2-3").read_bytes() == CONTENT
    assert {tag for tag, _ in store.images()} == {"latest", "2.1.2-3", "2.1.2-4"}


def test_a_link_that_somebody_removed_is_made_again(store: Store) -> None:
    put(store)
    store.record(image(), ["latest"])
    link = store.root / "images" / "pytorch-2.1" / "latest"
    link.unlink()
    store.record(image(), ["latest"])
    assert link.read_bytes() == CONTENT


@pytest.mark.slow
def test_records_of_many_at_once_lose_none(store: Store) -> None:
    put(store)
    tags = [f"1.0-{number}" for number in range(1, 13)]
    threads = [threading.Thread(target=store.record, args=(image(tag=tag), [tag])) for tag in tags]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tag for tag, _ in read_refs(store.root, "pytorch-2.1")] == sorted(tags)


@pytest.mark.parametrize("tag", ["../../../../escaped", "-rf", "a b", "", "a/b"])
def test_a_hostile_tag_or_name_makes_no_link(store: Store, tag: str) -> None:
    put(store)
    with pytest.raises(UsageError):
        store.record(image(), [tag])
    with pytest.raises(UsageError):
        store.record(image(recipe=f"../{tag}"), ["latest"])
    assert not (store.root / "images").exists()


def test_an_image_is_found_by_tag_by_digest_and_by_registry(store: Store) -> None:
    put(store)
    put(store, b"newer")
    newer = image(b"newer", tag="2.1.2-4", registry="quay.io/x")
    store.record(image(), ["latest", "2.1.2-3"])
    store.record(newer, ["2.1.2-4"])
    named = "pytorch-2.1"
    store = replace(store, registry="ghcr.io/org/images")
    assert store.find(Reference.parse(named)) == image()
    assert store.find(Reference.parse(f"quay.io/x/{named}:2.1.2-4")) == newer
    assert store.find(Reference.parse(f"{named}@{newer.digest}")) == newer
    assert store.find(Reference.parse(f"{named}:2.1.2-3@{newer.digest}")) == newer
    assert store.find(Reference.parse(f"ghcr.io/org/images/{named}:2.1.2-3")) == image()
    for text in (
        f"quay.io/x/{named}:latest",
        f"{named}:9",
        f"{named}:2.1.2-4",
        f"{named}@{Digest.of(b'?')}",
        "other",
        f"quay.io/x/{named}",
    ):
        with pytest.raises(NotFound) as caught:
            store.find(Reference.parse(text))
        assert caught.value.fix == f"singfactory pull {text}"


def test_without_latest_the_newest_image_that_is_here_is_taken(store: Store) -> None:
    put(store)
    store.record(image(tag="1-1", pulled="2024-01-01T00:00:00Z"), ["1-1"])
    store.record(image(b"lost", tag="1-3", pulled="2024-03-01T00:00:00Z"), ["1-3"])
    assert store.find(Reference.parse("pytorch-2.1")).tag == "1-1"
    put(store, b"two")
    store.record(image(b"two", tag="1-2", pulled="2024-02-01T00:00:00Z"), ["1-2"])
    assert store.find(Reference.parse("pytorch-2.1")).tag == "1-2"


def test_an_image_whose_blob_is_gone_is_not_there(store: Store) -> None:
    store.record(image(), ["latest"])
    with pytest.raises(NotFound) as caught:
        store.find(Reference.parse("pytorch-2.1"))
    assert caught.value.what == "the file of pytorch-2.1:2.1.2-3 is gone from the store"
    same = f"ghcr.io/org/images/pytorch-2.1@{image().digest}"
    assert caught.value.fix == f"get the same image back with: singfactory pull {same}"
    assert list(store.images()) == []


def test_refs_survive_json(store: Store) -> None:
    tags = {"latest": image(), "2.1.2-3": image(), "other": image(b"x", gpu="none", env={}, binds=())}
    other = image(b"y", registry="quay.io/x")
    known = Records(
        {image().registry: tags, "quay.io/x": {"latest": other}}, image().registry, frozenset(["quay.io/x"])
    )
    with store.opened() as root, root.make("refs") as refs:
        write_refs(refs, "pytorch-2.1", known, "")
    assert read_refs(store.root, "pytorch-2.1") == known


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        "null",
        '{"tags": []}',
        '{"tags": {"latest": {}}}',
        '{"tags": {"latest": null}}',
        "\udcff",
        json.dumps({"tags": {"latest": image().to_json() | {"sif_digest": "sha256:../../x"}}}),
        json.dumps({"tags": {"latest": image().to_json() | {"size": "many"}}}),
        json.dumps({"tags": {"latest": image().to_json() | {"run": []}}}),
    ],
)
def test_a_broken_record_counts_as_empty_and_the_next_pull_replaces_it(store: Store, broken: str) -> None:
    path = put(store)
    (store.root / "refs").mkdir()
    (store.root / "refs" / "pytorch-2.1.json").write_bytes(broken.encode(errors="surrogateescape"))
    with pytest.raises(NotFound):
        store.find(Reference.parse("pytorch-2.1"))
    store.record(image(), ["latest"])
    assert store.find(Reference.parse("pytorch-2.1")) == image()
    assert path.exists()


def test_a_sound_store_is_verified_and_left_as_it_is(store: Store) -> None:
    put(store)
    put(store, b"two")
    (store.root / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (store.root / "blobs" / "sha256" / "ab" / "README.sif").write_text("not the store's")
    before = everything_in(store.root)
    assert verify(store, Silent()) == (2, ())
    assert everything_in(store.root) == before


def test_a_flipped_bit_is_found_quarantined_and_fetched_again(store: Store) -> None:
    sound, path = put(store, b"sound"), put(store)
    store.record(image(), ["latest"])
    path.chmod(0o644)
    path.write_bytes(WRONG)
    assert store.usable(WANTED), "the size is right: only hashing tells"
    heard = Heard()
    count, (finding,) = verify(store, heard)
    assert count == 2
    assert heard.steps == [f"verify {len(b'sound') + len(WRONG)}", "end"]
    assert heard.done == len(b"sound") + len(WRONG)
    assert finding.path == store.root / "quarantine" / path.name
    assert finding.path.read_bytes() == WRONG
    assert finding.why == f"its digest is {Digest.of(WRONG)}, not {WANTED.digest}"
    assert not path.exists()
    assert sound.exists()
    with pytest.raises(NotFound):
        store.find(Reference.parse("pytorch-2.1"))
    put(store)
    assert store.find(Reference.parse("pytorch-2.1")) == image()
    assert verify(store, Silent()) == (2, ())


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("link", "it was a symbolic link"),
        ("dangling link", "it was a symbolic link"),
        ("pipe", "it was not a regular file"),
        ("folder", "it was not a regular file"),
        ("cut", f"its digest is {Digest.of(CONTENT[:100])}, not {WANTED.digest}"),
    ],
)
def test_what_stands_in_place_of_a_blob_is_moved_away(store: Store, tmp_path: Path, kind: str, why: str) -> None:
    path = store.blob(WANTED.digest)
    path.parent.mkdir(parents=True)
    target = tmp_path / "right bytes"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        path.write_bytes(CONTENT[:100])
    else:
        path.symlink_to(target)
    if kind == "link":
        target.write_bytes(CONTENT)
    count, (finding,) = verify(store, Silent())
    assert (count, finding.why) == (1, why)
    assert not os.path.lexists(path)
    assert target.exists() == (kind == "link")


@pytest.mark.parametrize(("code", "findings"), [(5, 1), (2, 0)])
def test_a_blob_that_the_disk_cannot_read_is_a_finding_and_one_that_left_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, findings: int
) -> None:
    put(store)

    def fail(*_: object) -> object:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "digest_of_open", fail)
    count, wrong = verify(store, Silent())
    assert (count, len(wrong)) == (findings, findings)


def test_nothing_is_in_a_store_that_was_never_used(store: Store) -> None:
    assert (list(store.blobs()), list(store.images()), list(store.leftovers())) == ([], [], [])
    assert verify(store, Silent()) == (0, ())
    assert not store.root.exists()


def test_a_holder_that_hangs_is_not_waited_for_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "LOCK_TIMEOUT", 0.3)
    entered, leave = threading.Event(), threading.Event()

    def slow(_: int) -> Iterable[bytes]:
        entered.set()
        leave.wait(20)
        return [CONTENT]

    thread = threading.Thread(target=ingest, args=(store, WANTED, slow, Silent()))
    thread.start()
    assert entered.wait(10)
    try:
        with pytest.raises(FactoryError, match=f"gave up waiting for process {os.getpid()} "):
            put(store)
    finally:
        leave.set()
        thread.join()
    assert verify(store, Silent()) == (1, ())

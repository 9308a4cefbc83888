"""Nodes are threads here, each with a folder of its own; tests/integration/runners/test_staging.py has real ones."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.errors import FactoryError, PlaceUnusable
from factory.io.peers import PeerLost
from factory.jobs import broadcast
from factory.jobs.broadcast import Chain
from factory.jobs.pieces import PIECE, Pieces
from factory.jobs.rendezvous import Peer, Rendezvous, Step
from factory.oci.digest import Descriptor, Digest
from factory.pull.stage import Staged, stage
from factory.registry.protocol import SIF_LAYER
from factory.store.refs import StoredImage
from factory.store.store import Store
from tests.unit.parts import QUIET
from tests.unit.store.stored import ingest

CONTENT = os.urandom(4 * PIECE + 12345)
SIF = Descriptor.of(SIF_LAYER, CONTENT)
IMAGE = StoredImage("tool", "1.0-1", "oci:/x", Digest.of(b"m"), SIF.digest, SIF.size, "2024-05-01T12:00:00Z")
NEAR = "127.0.0.1"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes do not wait long for others that are gone."""
    monkeypatch.setattr(broadcast, "_QUIET", 0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    ingest(store, SIF, lambda offset: [CONTENT[offset:]], QUIET)
    return store


class Node:
    """A node that stages the image in a thread. change: alters its chain before it begins."""

    def __init__(self, store: Store, number: int, nodes: int, change: Callable[[Chain], None] = lambda _: None) -> None:
        self.local = store.root.parent / f"node{number}"
        self.chain = broadcast.chain(store, Step("7.0.0", number, nodes, NEAR), SIF)
        self.done: Staged | None = None
        self.error: FactoryError | None = None
        change(self.chain)
        self._store = store
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.done = stage(IMAGE, store=self._store, local=self.local, progress=QUIET, relay=self.chain)
            self.chain.stay()
        except FactoryError as error:
            self.error = error
        finally:
            self.chain.close()

    def result(self) -> bytes:
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert self.error is None, self.error
        assert self.done is not None
        return self.done.path.read_bytes()


def reads(nodes: list[Node]) -> int:
    return sum(node.chain.from_store for node in nodes)


@pytest.mark.parametrize("count", [2, 5])
def test_the_store_is_read_once_for_all_nodes(store: Store, count: int) -> None:
    nodes = [Node(store, number, count) for number in range(count)]
    assert {node.result() for node in nodes} == {CONTENT}
    assert reads(nodes) == len(CONTENT)
    assert list((store.root / "broadcast").iterdir()) == []


def test_nodes_may_begin_in_any_order(store: Store) -> None:
    nodes = []
    for number in (2, 1, 3, 0):
        nodes.append(Node(store, number, 4))
        time.sleep(0.1)
    assert {node.result() for node in nodes} == {CONTENT}
    assert reads(nodes) == len(CONTENT)


def test_a_node_whose_neighbors_never_come_reads_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "_PATIENCE", 0.2)
    node = Node(store, 3, 8)
    assert node.result() == CONTENT
    assert node.chain.from_store == len(CONTENT)


def spoiled(chain: Chain) -> None:
    """Let a node pass on other bytes than it has."""
    read = chain.pieces.read

    def wrong(number: int) -> tuple[bytes, bytes]:
        data, tag = read(number)
        return (bytes(len(data)), tag) if number == 2 else (data, tag)

    chain.pieces.read = wrong  # type: ignore[method-assign]


def test_wrong_bytes_from_a_node_are_noticed_at_once_and_come_from_another(store: Store) -> None:
    nodes = [Node(store, 0, 4), Node(store, 1, 4, spoiled), Node(store, 2, 4), Node(store, 3, 4)]
    assert {node.result() for node in nodes} == {CONTENT}
    assert reads(nodes) == len(CONTENT)
    assert any("sent wrong bytes" in note for note in nodes[2].chain.notes)


def interrupted(chain: Chain) -> None:
    """Let a node fail after two pieces, as on a full disk."""
    read = chain.read

    def some(offset: int, length: int | None) -> Iterator[bytes]:
        for number, block in enumerate(read(offset, length)):
            if number == 2:
                raise PlaceUnusable("no space is left")
            yield block

    chain.read = some  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_a_node_that_fails_in_the_middle_harms_no_other(store: Store, failing: int) -> None:
    nodes = [Node(store, number, 4, interrupted if number == failing else lambda _: None) for number in range(4)]
    for number, node in enumerate(nodes):
        if number == failing:
            node.thread.join(60)
            assert isinstance(node.error, PlaceUnusable)
        else:
            assert node.result() == CONTENT
    assert reads(nodes) <= 2 * len(CONTENT)  # on a busy machine, a node that nobody asks in time may have left


def silent(chain: Chain) -> None:
    """Let a node send nothing, not even a sign of life."""
    chain.pieces.serve = lambda *_: time.sleep(60)  # type: ignore[method-assign]


def test_a_node_that_falls_silent_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.io.peers.IDLE", 0.5)
    nodes = [Node(store, 0, 3), Node(store, 1, 3, silent), Node(store, 2, 3)]
    assert nodes[0].result() == CONTENT
    assert nodes[2].result() == CONTENT
    assert reads(nodes) <= 2 * len(CONTENT)  # the first node may have left before the last one noticed
    nodes[1].chain.close()


def test_a_damaged_file_in_the_store_is_staged_nowhere(store: Store) -> None:
    path = store.blob(SIF.digest)
    path.chmod(0o644)
    path.write_bytes(bytes(len(CONTENT)))
    path.chmod(0o444)
    nodes = [Node(store, number, 3) for number in range(3)]
    for node in nodes:
        node.thread.join(60)
        assert node.error is not None
        assert node.error.exit_code == 5
        assert not list(node.local.rglob("*.sif"))


def test_an_interrupted_copy_is_continued_from_the_right_byte(store: Store) -> None:
    here = Store(store.root.parent / "node1")

    def broken(_offset: int) -> list[bytes]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(here, SIF, broken, QUIET)
    (partial,) = here.leftovers()
    partial.write_bytes(CONTENT[: PIECE + 77])
    nodes = [Node(store, number, 3) for number in range(3)]
    assert {node.result() for node in nodes} == {CONTENT}
    assert reads(nodes) == len(CONTENT)


def test_what_a_node_passes_on_survives_a_pause(store: Store) -> None:
    first = Node(store, 0, 2)
    while first.done is None:
        time.sleep(0.01)
    first.chain.pause()
    second = Node(store, 1, 2)
    time.sleep(0.3)
    assert second.done is None
    first.chain.resume()
    assert second.result() == CONTENT
    assert second.chain.from_store == 0


def test_another_jobs_pieces_have_other_tags() -> None:
    one, other = (Pieces(SIF, bytes([number]) * 32) for number in range(2))
    assert one.tag(0, b"x") != other.tag(0, b"x")
    assert one.tag(0, b"x") != one.tag(1, b"x")
    assert one.tag(0, b"x") != Pieces(Descriptor.of(SIF_LAYER, b"y"), bytes(32)).tag(0, b"x")


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NODEID": "2", "SLURM_STEP_NUM_NODES": "2"},
        {"SLURM_JOB_ID": "../x", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "2"},
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NODEID": "x", "SLURM_STEP_NUM_NODES": "2"},
        {"SLURM_JOB_ID": "1", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "2"},
    ],
)
def test_outside_of_a_step_on_several_nodes_there_is_no_chain(env: dict[str, str]) -> None:
    assert Step.parse(env) is None


def test_a_step_is_found_in_the_environment_and_a_requeued_job_has_another_one() -> None:
    env = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_NODEID": "1", "SLURM_STEP_NUM_NODES": "2"}
    assert Step.parse(env) == Step("12.3.0", 1, 2)
    again = Step.parse({**env, "SLURM_RESTART_COUNT": "1", "SLURM_LAUNCH_NODE_IPADDR": NEAR})
    assert again == Step("12.3.1", 1, 2, NEAR)


def test_a_folder_that_others_can_read_is_no_meeting_point(store: Store) -> None:
    step = Step("7.0.0", 0, 2)
    folder = store.root / f"broadcast/7.0.0.{os.geteuid()}.{SIF.digest.hex[:16]}"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(PlaceUnusable, match="not this user's alone"):
        Rendezvous.at(store, step, SIF.digest)


def test_announcements_that_cannot_be_read_are_passed_over(store: Store) -> None:
    with contextlib.closing(Rendezvous.at(store, Step("7.0.0", 0, 2), SIF.digest)) as meeting:
        meeting.announce(Peer(1, "node1", (NEAR,), 4321))
        (folder,) = (store.root / "broadcast").iterdir()
        for number, text in enumerate(
            ["", "[]", '{"name": 1}', '{"name": "n", "addresses": [], "port": 0}', "x" * 9999]
        ):
            (folder / f"node-{number + 2}").write_text(text)
        (folder / "node-99").symlink_to("/etc/passwd")
        assert set(meeting.others(0)) == {1}
        with pytest.raises(PeerLost):
            meeting.others(0)[1].dial(meeting.secret, b"")


def test_folders_of_steps_that_were_killed_are_removed_after_a_day(store: Store) -> None:
    Rendezvous.at(store, Step("7.0.0", 0, 2), SIF.digest).close()
    (old,) = (store.root / "broadcast").iterdir()
    os.utime(old, (0, 0))
    Rendezvous.at(store, Step("8.0.0", 0, 2), SIF.digest).close()
    assert [path.name[:5] for path in (store.root / "broadcast").iterdir()] == ["8.0.0"]

"""Pulls of an image of which an older release is stored: what is fetched, and what can go wrong."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from factory.delta.index import ChunkIndex, index_image
from factory.oci.digest import Digest
from tests.integration.pull.cluster import NAME, Image, User, ended, publish_image, stop
from tests.integration.pull.conftest import Start, Upstream, registry_at
from tests.integration.pull.test_kills import at_each, copy_of, steps_of, watched
from tests.unit.delta.images import image, noise

NewUser = Callable[..., User]
FILES, PART = 300, 40_000
CHANGED = (4, *range(5, FILES, 16))
FAR: dict[str, Any] = {"delay": 0.02}
WITH_RANGE = ["Range", "bytes=.*"]
_MOST_KILLS = 12


def contents(changed: int = 0) -> bytes:
    """Return an image of 12 MB. changed: the number of the version; versions differ in some of the files."""
    files = [noise(PART, number) for number in range(FILES)]
    for place in CHANGED if changed else ():
        files[place] = noise(PART + 17 * changed, 1000 * changed + place)
    return image(*files, created=1_700_000_000 + changed)


def indexed(path: Path) -> bytes:
    """Return the chunk index of a file."""
    return index_image(path).encode()


@dataclass(frozen=True)
class Pair:
    """Two releases of one recipe in a namespace."""

    space: str
    old: Image
    new: Image


@pytest.fixture(scope="module")
def pair(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    registry = registry_at(upstream.server.host, "delta")
    return Pair("delta", *(publish_image(folder, registry, contents(number), chunks=indexed) for number in (0, 1)))


@pytest.fixture
def updating(pair: Pair, start: Start, new_user: NewUser) -> Callable[..., User]:
    """Return a function that makes a user who has the old image, and pulls the new one through a proxy with rules."""

    def make(*rules: dict[str, Any]) -> User:
        faulty = start(*rules, FAR)
        user: User = new_user(registry=str(faulty.address).replace("/images", f"/{pair.space}"))
        user.pull(f"{NAME}:1.0-1")
        return user

    return make


def changed_bytes(pair: Pair) -> int:
    """Return the size of the changed files in the new image, plus a margin for headers and tables."""
    assert len(pair.new.content) == pair.new.size
    return len(CHANGED) * (PART + 17) + 300_000


def test_only_the_changed_bytes_of_a_new_image_are_fetched(pair: Pair, updating: Callable[..., User]) -> None:
    user = updating()
    done = user.pull()
    assert user.arrived(pair.new) == pair.new.size
    assert len(CHANGED) * PART < done["transferred"] < changed_bytes(pair) < pair.new.size / 10
    assert done["reused"] > pair.new.size - changed_bytes(pair)


def test_what_is_said_to_be_fetched_is_what_the_registry_served(pair: Pair, start: Start, new_user: NewUser) -> None:
    faulty = start(FAR)
    user = new_user(registry=str(faulty.address).replace("/images", f"/{pair.space}"))
    user.pull(f"{NAME}:1.0-1")
    before = faulty.served("/blobs/")
    done = user.pull()
    assert faulty.served("/blobs/") - before == done["transferred"]
    ranges = [request for request in faulty.requests("GET", pair.new.blobs) if "Range" in request["headers"]]
    assert 1 < len(ranges) < len(CHANGED) + 5


def test_a_registry_that_ignores_ranges_serves_the_whole_image_and_nothing_is_said(
    pair: Pair, updating: Callable[..., User]
) -> None:
    user = updating({"path": pair.new.blobs, "no_range": True})
    done = user.run("pull", NAME, "--json")
    assert (done.code, user.arrived(pair.new)) == (0, pair.new.size)
    before_the_first_change = CHANGED[0] * PART  # a response without a range includes the beginning
    assert done.json()["transferred"] >= pair.new.size - before_the_first_change
    assert "whole" not in done.err


@pytest.mark.parametrize("fault", [{"status": 404}, {"flip": 70}, {"cut": 50}, {"status": 500}])
def test_without_its_chunk_index_an_image_is_fetched_whole(
    pair: Pair, updating: Callable[..., User], fault: dict[str, Any]
) -> None:
    assert pair.new.release.chunks is not None
    user = updating({"path": f"/blobs/{pair.new.release.chunks.digest}", **fault})
    done = user.pull()
    assert user.arrived(pair.new) == pair.new.size
    assert done["transferred"] >= pair.new.size


def reversed_order(right: bytes) -> bytes:
    """Return the same chunks at other offsets."""
    index = ChunkIndex.decode(right)
    digests = [index.digests[at : at + 16] for at in range(0, len(index.digests), 16)]
    return ChunkIndex(index.size, index.digest, index.lengths[::-1], b"".join(digests[::-1])).encode()


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "another image's": lambda right: right[:24] + bytes(32) + right[56:],
    "no index at all": lambda _: b"<html>not found</html>",
    "cut off": lambda right: right[:-1],
    "bytes after its end": lambda right: right + b"x",
    "a chunk of no bytes": lambda right: right[:56] + bytes(4) + right[60:],
    "a chunk of four gigabytes": lambda right: right[:56] + b"\xff" * 4 + right[60:],
    "a size beyond all disks": lambda right: right[:16] + b"\xff" * 8 + right[24:],
    "a count beyond all memory": lambda right: right[:12] + b"\xff" * 4 + right[16:],
    "digests of other bytes": lambda right: right[:-1600] + right[-1600:-800] * 2,
    "chunks at other places": reversed_order,
    "far too long": lambda right: right + bytes(2_000_000),
}


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_hostile_chunk_index_ends_with_the_right_bytes(
    lie: str, *, upstream: Upstream, start: Start, new_user: NewUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = f"hostile-{list(HOSTILE).index(lie)}"
    registry = registry_at(upstream.server.host, space)
    publish_image(tmp_path, registry, contents(0), chunks=indexed)
    # `singfactory publish` refuses such an index; other clients that write to the registry do not.
    monkeypatch.setattr("factory.publish.publish._chunks_of", lambda made: made.chunks.read_bytes())
    monkeypatch.setattr("factory.publish.publish._update", lambda *_: None)
    new = publish_image(tmp_path, registry, contents(1), chunks=lambda path: HOSTILE[lie](indexed(path)))
    assert new.release.chunks is not None
    user = new_user(registry=str(start(FAR).address).replace("/images", f"/{space}"))
    user.pull(f"{NAME}:1.0-1")
    done = user.run("pull", NAME, "--json")
    assert (done.code, user.arrived(new)) == (0, new.size), done.err
    assert done.json()["sif_digest"] == str(Digest.of(contents(1)))
    assert done.json()["transferred"] >= new.size


def test_a_local_image_with_a_flipped_bit_costs_a_full_fetch_and_says_so(
    pair: Pair, updating: Callable[..., User]
) -> None:
    user = updating()
    path = user.blob(pair.old)
    spoiled = bytearray(pair.old.content)
    spoiled[10 * PART + 50_000] ^= 1  # in an unchanged file
    path.chmod(0o644)
    path.write_bytes(spoiled)
    path.chmod(0o444)
    done = user.run("pull", NAME, "--json")
    assert (done.code, user.arrived(pair.new)) == (0, pair.new.size), done.err
    assert "local images gave wrong bytes" in done.err
    assert "store verify" in done.err
    assert user.run("store", "verify").code == 5
    shutil.rmtree(user.store / "quarantine")


def test_killed_updates_are_continued_with_what_was_fetched(pair: Pair, updating: Callable[..., User]) -> None:
    user = updating({"path": pair.new.blobs, "only": WITH_RANGE, "rate": 120_000})
    chance = random.Random(4)  # noqa: S311 - the same moments in every run
    kills = 0
    while kills < _MOST_KILLS:
        process = user.start("pull", NAME, "--json")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.8, 1.6))
            break
        stop(process)
        kills += 1
        user.arrived(pair.new)
    last = ended(process).json() if process.returncode == 0 else user.pull()
    assert kills
    assert user.arrived(pair.new) == pair.new.size
    assert last["transferred"] < len(CHANGED) * PART, "some of it came before"
    assert [path for path in user.files() if path.startswith("partial/")] == []


def test_an_update_killed_at_any_step_leaves_the_store_whole(pair: Pair, updating: Callable[..., User]) -> None:
    user = updating()
    count = len(steps_of(user))
    assert count > 15

    def kill(number: int) -> None:
        mine = copy_of(user, number)
        driven, _ = watched(mine, "--at", str(number))
        assert driven.run("pull", NAME).code == -signal.SIGKILL
        mine.arrived(pair.new)
        mine.verify()
        mine.pull()
        assert mine.arrived(pair.new) == pair.new.size
        assert [path for path in mine.files() if path.startswith("partial/")] == []
        shutil.rmtree(mine.store)

    at_each(range(1, count + 1), kill)


def test_many_processes_that_update_at_once_fetch_the_changes_once(pair: Pair, start: Start, new_user: NewUser) -> None:
    faulty = start(FAR)
    user = new_user(registry=str(faulty.address).replace("/images", f"/{pair.space}"))
    user.pull(f"{NAME}:1.0-1")
    before = faulty.served(pair.new.blobs)
    done = [ended(process) for process in [user.start("pull", NAME, "--json") for _ in range(6)]]
    assert [one.code for one in done] == [0] * 6
    assert faulty.served(pair.new.blobs) - before < changed_bytes(pair)
    assert sum(one.json()["transferred"] > 0 for one in done) == 1

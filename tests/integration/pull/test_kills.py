"""Pulls that are killed at every step, and the order in which files become durable."""

from __future__ import annotations

import json
import shutil
import signal
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pull.cluster import KILL_AT, NAME, Image, User, content_of, ended, publish_image, stop, until
from tests.integration.pull.conftest import SMALL, Start, Upstream, registry_at

NewUser = Callable[..., User]

AT_ONCE = 2  # kills tried in parallel, each on a copy of the store
INTERRUPTED = "singfactory: interrupted\n  run the same command again: finished work is kept\n"


def watched(user: User, *options: str) -> tuple[User, Path]:
    """Return the same user under kill_at.py, and the file that it writes."""
    record = user.home.with_name(f"{user.home.name}.record")
    record.write_text("")
    program = (*KILL_AT, str(user.store), str(record), *options, "--")
    return replace(user, program=program), record


def noted(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()]


def copy_of(user: User, place: object) -> User:
    """Return the same user with a copy of the store."""
    mine = replace(user, home=user.home.with_name(f"home-{place}"), store=user.store.with_name(f"store-{place}"))
    shutil.copytree(user.store, mine.store, symlinks=True)
    return mine


def steps_of(user: User) -> list[dict[str, Any]]:
    """Return the steps of an undisturbed pull into a copy of the user's store."""
    driven, record = watched(copy_of(user, "clean"))
    driven.pull()
    return [line for line in noted(record) if "step" in line]


def at_each(numbers: Iterable[int], kill: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(kill, numbers))


def kill_at_each_step(user: User, image: Image, number_of_signal: signal.Signals) -> int:
    """Kill a pull at every step, each time on a copy of the user's store. Returns the number of steps."""
    count = len(steps_of(user))

    def kill(number: int) -> None:
        mine = copy_of(user, number)
        driven, _ = watched(mine, "--at", str(number), "--signal", number_of_signal.name)
        killed = driven.run("pull", NAME)
        if number_of_signal is signal.SIGKILL:
            assert killed.code == -signal.SIGKILL, (number, killed)
        else:
            assert (killed.code, killed.err) == (130, INTERRUPTED), (number, killed)
        kept = mine.arrived(image)
        links = mine.store.glob("images/*/[!.]*")
        assert all(link.exists() for link in links), number
        again = mine.pull()
        assert (again["reused"], again["transferred"]) == (kept, image.size - kept), number
        assert (mine.store / "images" / NAME / "latest").resolve() == mine.blob(image)
        assert mine.arrived(image) == image.size
        mine.verify()

    at_each(range(1, count + 1), kill)
    return count


def test_a_pull_that_is_killed_at_any_step_leaves_nothing_half_done_and_the_next_one_finishes_it(
    upstream: Upstream, new_user: NewUser
) -> None:
    user = new_user()
    user.store.mkdir()
    assert kill_at_each_step(user, upstream.small, signal.SIGKILL) > 30


def test_a_newer_image_that_is_interrupted_at_any_step_leaves_the_older_one_in_its_place(
    upstream: Upstream, new_user: NewUser, tmp_path: Path
) -> None:
    registry = registry_at(upstream.server.host, "newer")
    older = publish_image(tmp_path, registry, content_of("older", SMALL))
    user = new_user(registry=registry.describe())
    user.pull()
    newer = publish_image(tmp_path, registry, content_of("newer", SMALL))
    assert kill_at_each_step(user, newer, signal.SIGTERM) > 20
    assert user.arrived(older) == older.size


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("connections", ["1", "4"])
def test_a_pull_that_is_ended_in_the_middle_of_the_bytes_goes_on_where_it_was(
    upstream: Upstream, start: Start, new_user: NewUser, number: signal.Signals, connections: str
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "method": "GET", "rate": 12_000_000})
    user = new_user(faulty, settings={"SINGFACTORY_CONNECTIONS": connections})
    process = user.start("pull", "large")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 9_000_000, process)
    assert stop(process, number).code == (130 if number is signal.SIGTERM else -signal.SIGKILL)
    assert not user.blob(image).exists()
    kept = user.arrived(image)
    assert 9_000_000 < kept < image.size
    again = user.pull("large", SINGFACTORY_REGISTRY=str(upstream.server.address))
    assert (again["reused"], again["transferred"]) == (kept, image.size - kept)
    assert user.arrived(image) == image.size


def test_everything_that_gets_a_name_was_synced_before_and_its_folder_is_afterwards(
    upstream: Upstream, new_user: NewUser
) -> None:
    user, record = watched(new_user())
    user.pull()
    lines = noted(record)
    renamed = [(number, line) for number, line in enumerate(lines) if line.get("step") == "os.rename"]
    assert len(renamed) == 5, "the lease, the blob, two tags, the record"
    for number, line in renamed:
        final = Path(line["to"])
        if final.parent.name == "leases":  # means nothing after a power loss
            continue
        if not final.is_symlink():  # a link has no bytes to sync
            before = last_sync(lines[:number], line["path"])
            found = final.stat()
            assert (before["size"], before["mtime"]) == (found.st_size, found.st_mtime_ns), "nothing came after it"
        assert lines[number + 1].get("fsync") == str(final.parent)
    assert user.arrived(upstream.small) == upstream.small.size


def last_sync(lines: list[dict[str, Any]], path: str) -> dict[str, Any]:
    return next(line for line in reversed(lines) if line.get("fsync") == path)


def test_a_kill_between_two_steps_does_not_close_a_shared_store_to_others(new_user: NewUser) -> None:
    user = new_user()
    user.store.mkdir()
    user.store.chmod(0o2775)
    steps = steps_of(user)
    made = [number + 1 for number, line in enumerate(steps, 1) if line["step"] == "os.mkdir"]
    assert len(made) > 5
    closed: list[str] = []

    def kill(number: int) -> None:
        mine = copy_of(user, number)
        driven, _ = watched(mine, "--at", str(number))
        assert ended(driven.start("pull", NAME, umask=0o077)).code == -signal.SIGKILL
        assert ended(mine.start("pull", NAME, umask=0o077)).code == 0
        folders = [path for path in mine.store.rglob("*") if path.is_dir()]
        closed.extend(str(path) for path in folders if stat.S_IMODE(path.stat().st_mode) != 0o2775)

    at_each(made, kill)
    assert closed == []

"""Verification and garbage collection of a store that other processes use."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.integration.pull.cluster import NAME, User, content_of, ended, publish_image, stand_in_engine, until
from tests.integration.pull.conftest import SMALL, Start, Upstream, registry_at
from tests.integration.pull.test_kills import at_each, copy_of, noted, watched

NewUser = Callable[..., User]
ALL = ("store", "gc", "--grace", "0", "--lease-grace", "0", "--keep", "0")  # everything that is not in use


def test_a_flipped_byte_is_found_put_aside_and_comes_back_with_the_same_digest(
    upstream: Upstream, new_user: NewUser
) -> None:
    image, user = upstream.small, new_user()
    before = user.pull()
    path = user.blob(image)
    content = bytearray(image.content)
    content[1_000_000] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    found = user.run("store", "verify", "--json")
    assert found.code == 5
    (wrong,) = found.json()["wrong"]
    assert f"not {image.sif}" in wrong["why"]
    assert Path(wrong["path"]).parent == user.store / "quarantine"
    assert Path(wrong["path"]).read_bytes() == content
    assert not path.exists()
    assert user.run("path", NAME).code == 3
    again = user.pull()
    assert (again["sif_digest"], again["digest"]) == (before["sif_digest"], before["digest"])
    assert (again["transferred"], again["path"]) == (image.size, before["path"])
    assert user.arrived(image) == image.size


def test_a_collection_never_takes_what_a_running_pull_fetches(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 4_000_000})
    user = new_user(faulty)
    user.pull()
    process = user.start("pull", "large", "--json")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 0, process)
    collected = user.run(*ALL, "--json")
    assert process.poll() is None, "the bytes still came"
    assert collected.code == 0, collected
    assert [row["path"] for row in collected.json()["removed"] if row["size"]] == [str(user.blob(upstream.small))]
    kept = {row["path"]: row["why"] for row in collected.json()["kept"]}
    assert kept[str(user.partial(image))].startswith(f"being fetched by process {process.pid} ")
    done = ended(process)
    assert (done.code, done.json()["transferred"]) == (0, image.size)
    assert user.arrived(image) == image.size


def test_a_collection_never_takes_what_a_running_program_uses(
    upstream: Upstream, new_user: NewUser, tmp_path: Path
) -> None:
    registry = registry_at(upstream.server.host, "used")
    older = publish_image(tmp_path, registry, content_of("used", SMALL))
    user = new_user(registry=registry.describe(), settings={"SINGFACTORY_ENGINE": stand_in_engine(tmp_path)})
    running = user.start("exec", NAME, "--", "train")
    until((user.home / "running").exists, running)
    newer = publish_image(tmp_path, registry, content_of("newer than used", SMALL))
    user.pull()
    before = user.files()
    rehearsed = user.run(*ALL, "--dry-run", "--json")
    assert user.files() == before, "--dry-run removes nothing"
    assert [row["path"] for row in rehearsed.json()["removed"] if row["size"]] == [str(user.blob(newer))]
    collected = user.run(*ALL, "--json")
    kept = {row["path"]: row["why"] for row in collected.json()["kept"]}
    assert kept[str(user.blob(older))].startswith(f"in use by process {running.pid} ")
    assert (user.arrived(older), user.blob(newer).exists()) == (SMALL, False)
    (user.home / "end").touch()
    assert ended(running).code == 0
    assert user.run(*ALL).code == 0
    assert not user.blob(older).exists()


def test_a_collection_that_is_killed_at_any_step_leaves_a_store_that_brings_the_same_image_back(
    upstream: Upstream, new_user: NewUser
) -> None:
    image, user = upstream.small, new_user()
    user.pull()
    driven, record = watched(copy_of(user, "clean"))
    assert driven.run(*ALL).code == 0
    assert not driven.blob(image).exists()
    count = sum("step" in line for line in noted(record))
    assert count > 15

    def kill(number: int) -> None:
        mine = copy_of(user, number)
        driven, _ = watched(mine, "--at", str(number))
        assert driven.run(*ALL).code == -signal.SIGKILL, number
        kept = mine.arrived(image)
        mine.verify()
        assert mine.pull()["transferred"] == image.size - kept, number
        assert mine.arrived(image) == image.size
        assert mine.run(*ALL).code == 0
        assert [path for path in mine.files() if not path.startswith(("leases/", "locks/."))] == [], number

    at_each(range(1, count + 1), kill)

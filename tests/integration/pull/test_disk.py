"""A file system that is full before a pull, or fills up during one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pull.cluster import NAME, User, ended, until
from tests.integration.pull.conftest import Start, Upstream

NewUser = Callable[..., User]


def leave(path: Path, free: int) -> None:
    """Write a file that leaves only so many bytes free."""
    with path.open("wb") as file:
        found = os.statvfs(path)
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free)


def fill(path: Path) -> None:
    """Write a file that takes all free space, while other processes write too."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 * 1024))


def test_a_full_disk_is_told_before_anything_is_fetched_with_the_bytes_that_are_needed(
    upstream: Upstream, start: Start, new_user: NewUser, disk: Path
) -> None:
    faulty = start()
    user = new_user(faulty, store=disk / "store")
    user.pull()
    leave(disk / "other", 50_000_000)
    done = user.run("pull", "large")
    assert done.code == 8, done
    assert f"not enough space in {user.store}" in done.err
    assert "91.1 MB needed, 50" in done.err, "24 MB, and 64 MiB that stay free for others"
    assert faulty.requests("GET", upstream.large.blobs) == []
    assert user.arrived(upstream.small) == upstream.small.size
    (disk / "other").unlink()
    user.pull("large")


@pytest.mark.parametrize("connections", ["1", "4"])
def test_a_disk_that_fills_in_the_middle_harms_no_image_and_the_next_pull_goes_on(
    upstream: Upstream, start: Start, new_user: NewUser, disk: Path, connections: str
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "method": "GET", "rate": 10_000_000})
    user = new_user(faulty, store=disk / "store", settings={"SINGFACTORY_CONNECTIONS": connections})
    user.pull()
    process = user.start("pull", "large")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 3_000_000, process)
    fill(disk / "other")
    done = ended(process)
    assert done.code == 8, done
    assert f"no space left to write {user.store}" in done.err
    assert len(done.err.splitlines()) <= 4
    user.verify()
    assert user.run("path", NAME).out == f"{user.blob(upstream.small)}\n"
    assert user.pull()["transferred"] == 0, "what is here needs no room"
    kept = user.arrived(image)
    assert 3_000_000 < kept < image.size
    (disk / "other").unlink()
    again = user.pull("large", SINGFACTORY_REGISTRY=str(upstream.server.address))
    assert (again["reused"], again["transferred"]) == (kept, image.size - kept)
    assert user.arrived(image) == image.size

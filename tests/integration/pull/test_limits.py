"""Login nodes that allow few processes, threads and memory, and users with a strict umask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.pull.cluster import NAME, User, stop, until
from tests.integration.pull.conftest import Start, Upstream
from tests.limits import MEMORY, limited, peak

NewUser = Callable[..., User]


@pytest.mark.parametrize("processes", [64, 3, 2, 1])
def test_pull_verify_and_path_work_with_few_processes_and_little_memory(
    upstream: Upstream, start: Start, new_user: NewUser, processes: int
) -> None:
    user = new_user(start())
    with limited(processes, addresses=MEMORY) as prefix:
        login = replace(user, program=[*prefix, *user.program])
        for name, image in ((NAME, upstream.small), ("large", upstream.large)):
            pulled = login.pull(name)
            assert Path(pulled["path"]).read_bytes() == image.content
            path = login.run("path", name)
            assert (path.code, path.out) == (0, f"{pulled['path']}\n")
            staged = login.run("stage", name, "--to", str(user.home / "local"))
            assert (staged.code, Path(staged.out.strip()).read_bytes() == image.content) == (0, True)
        login.verify()
        assert peak(prefix) < MEMORY


def test_a_killed_pull_resumes_with_a_single_thread(upstream: Upstream, start: Start, new_user: NewUser) -> None:
    image = upstream.large
    user = new_user(start({"path": image.blobs, "method": "GET", "rate": 12_000_000}))
    process = user.start("pull", "large")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 9_000_000, process)
    stop(process)
    kept = user.arrived(image)
    with limited(1, addresses=MEMORY) as prefix:
        again = replace(user, registry=str(upstream.server.address), program=[*prefix, *user.program]).pull("large")
    assert (again["reused"], again["transferred"]) == (kept, image.size - kept)
    assert Path(again["path"]).read_bytes() == image.content


def test_too_little_memory_is_said_in_plain_words(new_user: NewUser) -> None:
    user = new_user()
    with limited(64, addresses=50 << 20) as prefix:
        done = replace(user, program=[*prefix, *user.program]).run("pull", "large")
    assert (done.code, done.out) == (9, "")
    assert done.err.splitlines()[0] == "singfactory: not enough memory"

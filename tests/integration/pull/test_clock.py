"""A clock that is a day off: the error about certificates says so, and nothing else depends on the clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pull.cluster import NAME, User, ended, stand_in_engine, stop, until
from tests.integration.pull.conftest import Start, Upstream
from tests.integration.pull.test_sharing import write_lock
from tests.integration.registry.test_connections import serving

NewUser = Callable[..., User]
DAY = 86400


@pytest.mark.parametrize(("valid", "why"), [((1, 2), "it is not valid yet"), ((-2, -1), "it has expired")])
def test_a_certificate_of_tomorrow_or_yesterday_points_at_the_clock(
    new_user: NewUser, tmp_path: Path, valid: tuple[int, int], why: str
) -> None:
    with serving(tmp_path, valid=valid) as (host, authority):
        user = new_user(registry=f"{host}/images", settings={"SINGFACTORY_CA": authority})
        done = user.run("pull", NAME)
    assert done.code == 4, done
    first, second, third = done.err.splitlines()
    assert first == f"singfactory: the certificate of {host} is not trusted"
    assert second.startswith(f"  {why}: this machine's clock says 2")
    assert third.startswith("  correct the clock")


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_a_store_whose_times_are_a_day_off_works_as_any_other(
    upstream: Upstream, start: Start, new_user: NewUser, tmp_path: Path, ahead: int
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "rate": 10_000_000, "times": 5})
    user = new_user(faulty, settings={"SINGFACTORY_ENGINE": stand_in_engine(tmp_path)})
    running = user.start("exec", NAME, "--", "train")
    until((user.home / "running").exists, running)
    broken = user.start("pull", "large")
    until(lambda: user.partial(image).exists() and user.partial(image).stat().st_size > 5_000_000, broken)
    stop(broken)
    assert json.loads(user.lock(image).read_text())["pid"] == broken.pid
    when = time.time() + ahead
    for path in user.store.rglob("*"):
        os.utime(path, (when, when), follow_symlinks=False)
    kept = user.arrived(image)
    again = user.pull("large")
    assert (again["reused"], again["transferred"]) == (kept, image.size - kept)
    user.pull()
    collected = user.run("store", "gc", "--grace", "0", "--keep", "0", "--json")
    in_use = {row["path"]: row["why"] for row in collected.json()["kept"]}
    assert in_use[str(user.blob(upstream.small))].startswith(f"in use by process {running.pid} ")
    assert user.arrived(upstream.small) == upstream.small.size
    (user.home / "end").touch()
    assert ended(running).code == 0


def test_a_living_holder_elsewhere_is_believed_although_its_clock_is_a_day_behind(
    upstream: Upstream, new_user: NewUser
) -> None:
    user = new_user()
    write_lock(user.lock(upstream.small), host="another-host", pid=4711, user=1000)
    long_ago = time.time() - DAY
    os.utime(user.lock(upstream.small), (long_ago, long_ago))
    process = user.start("pull", NAME)
    assert process.stderr is not None
    assert (
        process.stderr.readline()
        == "waiting for process 4711 of user 1000 on another-host, which is doing the same work\n"
    )
    user.lock(upstream.small).unlink()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert user.arrived(upstream.small) == upstream.small.size

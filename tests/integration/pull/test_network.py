"""Failures of the registry and the network: the image is right, or nothing is stored and the error helps."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.factory_project import Done
from tests.integration.pull.cluster import NAME, User
from tests.integration.pull.conftest import Start, Upstream

NewUser = Callable[..., User]
IMPATIENT = {"SINGFACTORY_IDLE_TIMEOUT": "1"}
WITH_RANGE = ["Range", "bytes=.*"]


def assert_nothing_is_there(user: User) -> None:
    """Check that the store has no image, no partial download and no tag."""
    assert [path for path in user.files() if not path.startswith("leases/")] == []


# 5xx and resets


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "times": 2},
        {"status": 502, "body": "a long page " * 10_000, "times": 1},
        {"reset": 0, "times": 1},
        {"reset": 1_200_000, "times": 1},
    ],
    ids=["a burst of 500", "a page that says 502", "reset at once", "reset in the middle"],
)
def test_a_failure_that_passes_is_not_seen_by_the_user(
    upstream: Upstream, start: Start, new_user: NewUser, fault: Mapping[str, Any]
) -> None:
    faulty = start({"path": upstream.small.blobs, **fault})
    user = new_user(faulty)
    assert user.pull()["transferred"] == upstream.small.size
    assert user.arrived(upstream.small) == upstream.small.size
    assert len(faulty.requests("GET", upstream.small.blobs)) == fault["times"] + 1


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_a_failure_that_lasts_ends_with_host_status_and_attempts(start: Start, new_user: NewUser, path: str) -> None:
    faulty = start({"path": path, "status": 503})
    user = new_user(faulty, settings={"SINGFACTORY_RETRY_BUDGET": "1"})
    done = user.run("pull", NAME)
    assert (done.code, done.out) == (4, "")
    found = re.search(rf"^singfactory: {faulty.server.host} answered 503 \(attempt (\d)\)$", done.err, re.MULTILINE)
    assert found, done.err
    assert int(found[1]) == len(faulty.requests("GET", path)) > 1
    assert len(done.err.splitlines()) <= 4
    assert user.run("path", NAME).code == 3


# 429


def test_retry_after_is_obeyed(upstream: Upstream, start: Start, new_user: NewUser) -> None:
    faulty = start({"path": upstream.small.blobs, "status": 429, "headers": {"Retry-After": "1"}, "times": 1})
    user = new_user(faulty)
    user.pull()
    first, second = (request["time"] for request in faulty.requests("GET", upstream.small.blobs))
    assert second - first >= 1


def test_retry_after_beyond_the_budget_ends_the_pull_at_once_and_says_when_to_come_back(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    faulty = start({"path": upstream.small.blobs, "status": 429, "headers": {"Retry-After": "900"}})
    user = new_user(faulty)
    done = user.run("pull", NAME)
    assert done.code == 4
    assert "answered 429 (too many requests)" in done.err
    assert "it asks for a wait of 900 s" in done.err
    assert re.search(r"try again after \d\d:\d\d:\d\d", done.err)
    assert len(faulty.requests("GET", upstream.small.blobs)) == 1


# Faults within a body


def test_a_stream_that_stalls_is_resumed_after_the_idle_time_and_not_fetched_anew(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    faulty = start({"path": upstream.small.blobs, "stall": 2_200_000, "times": 1})
    user = new_user(faulty, settings=IMPATIENT)
    assert user.pull()["transferred"] == upstream.small.size
    resumed = faulty.requests("GET", upstream.small.blobs)[1]["headers"]["Range"]
    assert int(resumed.removeprefix("bytes=").partition("-")[0]) > 2_000_000
    assert upstream.small.size <= faulty.served(upstream.small.blobs) < 1.1 * upstream.small.size


def test_a_stream_that_is_slow_is_not_cut_by_the_idle_time(upstream: Upstream, start: Start, new_user: NewUser) -> None:
    faulty = start({"path": upstream.small.blobs, "rate": 2_000_000})
    user = new_user(faulty, settings=IMPATIENT)
    began = time.monotonic()
    user.pull()
    assert time.monotonic() - began > 1.4, "longer than the idle time"
    assert len(faulty.requests("GET", upstream.small.blobs)) == 1


@pytest.mark.parametrize(
    "fault",
    [{"cut": 1_234_567}, {"length": 1_500_000, "cut": 1_500_000}, {"length": 3_000_001}, {"add": "and more"}],
    ids=["truncated", "length too small", "length too large", "more bytes"],
)
def test_a_body_of_another_length_is_never_taken_for_the_image(
    upstream: Upstream, start: Start, new_user: NewUser, fault: Mapping[str, Any]
) -> None:
    faulty = start({"path": upstream.small.blobs, "times": 1, **fault})
    user = new_user(faulty)
    user.pull()
    assert user.arrived(upstream.small) == upstream.small.size
    requests = faulty.requests("GET", upstream.small.blobs)
    assert len(requests) == 2
    if "cut" in fault:
        assert "Range" in requests[1]["headers"]
        assert faulty.served(upstream.small.blobs) <= 1.1 * upstream.small.size


def test_a_flipped_bit_costs_one_clean_retry(upstream: Upstream, start: Start, new_user: NewUser) -> None:
    faulty = start({"path": upstream.small.blobs, "flip": 1_000_000, "times": 1})
    user = new_user(faulty)
    done = user.run("pull", NAME)
    assert done.code == 0
    assert "the digest is wrong; fetching the image once more" in done.err
    assert user.arrived(upstream.small) == upstream.small.size
    assert [request["headers"].get("Range") for request in faulty.requests("GET", upstream.small.blobs)] == [None] * 2


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_bit_that_is_always_flipped_ends_with_both_digests_and_leaves_nothing(
    upstream: Upstream, start: Start, new_user: NewUser, name: str
) -> None:
    image = {"small": upstream.small, "large": upstream.large}[name]
    faulty = start({"path": image.blobs, "flip": 1_000_000})
    user = new_user(faulty)
    done = user.run("pull", image.release.recipe)
    assert done.code == 5
    told = re.search(r"expected (sha256:[0-9a-f]{64}), got (sha256:[0-9a-f]{64})", done.err)
    assert told, done.err
    assert (told[1], told[2] != told[1]) == (str(image.sif), True)
    assert_nothing_is_there(user)
    assert faulty.served(image.blobs) <= 2.2 * image.size


# Ranges


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    path = upstream.small.blobs
    faulty = start({"path": path, "cut": 2_000_000, "times": 1}, {"path": path, "no_range": True})
    user = new_user(faulty)
    user.pull()
    assert user.arrived(upstream.small) == upstream.small.size
    assert len(faulty.requests("GET", path)) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"headers": {"Content-Range": "bytes 2000000-2999999/4000000"}},
        {"status": 416},
    ],
    ids=["of another file", "416"],
)
def test_a_wrong_range_means_from_the_start(
    upstream: Upstream, start: Start, new_user: NewUser, fault: Mapping[str, Any]
) -> None:
    path = upstream.small.blobs
    faulty = start({"path": path, "cut": 2_000_000, "times": 1}, {"path": path, "only": WITH_RANGE, **fault})
    user = new_user(faulty)
    user.pull()
    assert user.arrived(upstream.small) == upstream.small.size
    asked = ["Range" in request["headers"] for request in faulty.requests("GET", path)]
    assert asked == [False, True, False]


@pytest.mark.parametrize("fault", [{"no_range": True}, {"headers": {"Content-Range": "nonsense"}}])
def test_a_large_image_comes_over_one_connection_where_ranges_do_not_work(
    upstream: Upstream, start: Start, new_user: NewUser, fault: Mapping[str, Any]
) -> None:
    image = upstream.large
    faulty = start({"path": image.blobs, "only": WITH_RANGE, **fault})
    user = new_user(faulty)
    done: Done = user.run("pull", "large")
    assert done.code == 0, done.err
    assert user.arrived(image) == image.size

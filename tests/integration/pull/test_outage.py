"""A registry that goes away in the middle of a transfer, for a while or for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from tests.integration.pull.cluster import Image, User, content_of, ended, publish_image, until
from tests.integration.pull.conftest import LARGE, Start, Upstream, registry_at
from tests.servers import docker_registry, free_port

NewUser = Callable[..., User]
SLOW = {"SINGFACTORY_LIMIT_RATE": "4MB/s", "SINGFACTORY_RETRY_BUDGET": "120"}
AWAY = 10.0  # seconds


class Registry:
    """A registry with one image that can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._stack = ExitStack()
        self.start()
        self.address = f"http://127.0.0.1:{self._port}/images"
        self.image: Image = publish_image(
            folder, registry_at(f"127.0.0.1:{self._port}", "images"), content_of("outage", LARGE)
        )

    def start(self) -> None:
        self._stack.enter_context(docker_registry(self._folder, port=self._port))

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    found = Registry(tmp_path / "registry")
    yield found
    found.stop()


def has_begun(user: User, image: Image) -> bool:
    return user.partial(image).exists() and user.partial(image).stat().st_size > 2_000_000


@pytest.mark.parametrize("connections", ["1", "4"])
def test_a_pull_survives_a_registry_that_is_away_for_ten_seconds(
    registry: Registry, new_user: NewUser, connections: str
) -> None:
    user = new_user(registry=registry.address, settings={**SLOW, "SINGFACTORY_CONNECTIONS": connections})
    pulling = user.start("pull", "tool")
    until(lambda: has_begun(user, registry.image), pulling)
    registry.stop()
    time.sleep(AWAY)
    registry.start()
    done = ended(pulling)
    assert done.code == 0, done
    assert "refused the connection; trying again in" in done.err
    assert user.arrived(registry.image) == LARGE


def test_a_registry_that_stays_away_ends_the_pull_after_the_setting(registry: Registry, new_user: NewUser) -> None:
    user = new_user(registry=registry.address, settings={**SLOW, "SINGFACTORY_OUTAGE": "5"})
    pulling = user.start("pull", "tool")
    until(lambda: has_begun(user, registry.image), pulling)
    registry.stop()
    started = time.monotonic()
    done = ended(pulling)
    assert 5 <= time.monotonic() - started < 30
    assert (done.code, done.out) == (4, "")
    assert "refused the connection (attempt " in done.err
    registry.start()
    assert user.pull("tool")["reused"] > 0


def test_a_registry_that_was_never_there_is_given_up_soon(new_user: NewUser) -> None:
    user = new_user(registry=f"http://127.0.0.1:{free_port()}/images", settings={"SINGFACTORY_RETRY_BUDGET": "120"})
    done = user.run("pull", "tool")
    assert (done.code, "refused the connection (attempt 3)" in done.err) == (4, True), done


def test_a_gateway_without_its_registry_counts_as_a_registry_that_is_away(
    upstream: Upstream, start: Start, new_user: NewUser
) -> None:
    blobs = upstream.large.blobs
    faulty = start({"path": blobs, "reset": 3_000_000, "times": 1}, {"path": blobs, "status": 502, "times": 7})
    user = new_user(faulty, settings={"SINGFACTORY_RETRY_BUDGET": "120", "SINGFACTORY_CONNECTIONS": "1"})
    assert user.pull("large")["transferred"] == upstream.large.size


def test_an_upload_survives_a_registry_that_is_away_for_ten_seconds(registry: Registry, tmp_path: Path) -> None:
    content = content_of("upload", LARGE)
    source = tmp_path / "image.sif"
    source.write_bytes(content)
    there = registry_at(registry.address.split("/")[2], "images")
    sent = threading.Event()

    class Watched(Silent):
        def advance(self, count: int) -> None:
            if count > 0 and not sent.is_set():
                registry.stop()
                sent.set()

    restart = threading.Timer(AWAY, registry.start)
    restart.start()
    try:
        there.push_blob("tool", source, Descriptor.of("application/octet-stream", content), Watched())
    finally:
        restart.join()
    assert b"".join(there.blob("tool", Descriptor.of("application/octet-stream", content))) == content

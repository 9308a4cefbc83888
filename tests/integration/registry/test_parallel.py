"""A large image over several connections: a real registry behind a proxy that is slow, breaks and lies."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure, RegistryFailure
from factory.io.http.client import HttpFailure, HttpSettings
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.registry.distribution import DistributionRegistry
from factory.registry.protocol import SIF_LAYER
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.store import Store
from factory.store.verify import verify
from tests.factory_project import ROOT
from tests.servers import Faulty, Server, crane_registry, docker_registry, faulty_registry

SIZE = 24_000_000
CONTENT = hashlib.shake_128(b"parts").digest(SIZE)
LAYER = Descriptor.of(SIF_LAYER, CONTENT)
BLOBS = f"/blobs/{LAYER.digest}"
NAME = "tool"
PART = 4 * 1024 * 1024
SLOW = {"path": BLOBS, "method": "GET", "rate": 40_000_000}  # a connection: slow enough for several
FIRST, SECOND, OTHERS = (["Range", wanted] for wanted in (r"bytes=0-.*", rf"bytes={PART}-.*", r"bytes=[1-9].*"))

Start = Callable[..., Faulty]

PULL = """
import sys
from pathlib import Path
from factory.oci.digest import Descriptor, Digest
from factory.io.progress import Silent
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.store import Store
address, root, digest, size = sys.argv[1:]
wanted = Descriptor("a/b", Digest.parse(digest), int(size))
registry = open_registry(RegistryAddress.parse(address))
read = lambda offset, length: registry.blob("tool", wanted, offset, length, caller_verifies=True)
fetch_whole(Store(Path(root)), wanted, Source(read, registry.connections), Silent())
"""


@pytest.fixture(scope="module", params=["docker", "crane"])
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that holds one image."""
    start = {"docker": docker_registry, "crane": crane_registry}[request.param]
    with start(tmp_path_factory.mktemp("upstream")) as server:
        DistributionRegistry(server.address).push_blob(NAME, CONTENT, LAYER, Silent())
        yield server


@pytest.fixture
def start(upstream: Server, tmp_path: Path) -> Iterator[Start]:
    """Starts the proxy with the rules it is called with."""
    with ExitStack() as stack:

        def begin(*rules: Mapping[str, Any]) -> Faulty:
            return stack.enter_context(faulty_registry(tmp_path, upstream.host, rules))

        yield begin


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def ingest(store: Store, faulty: Faulty, **settings: Any) -> int:
    patience = {"idle_timeout": 1.0, "budget": 8.0, "attempts": 4, "backoff": 0.05}
    registry = DistributionRegistry(faulty.address, settings=HttpSettings(**(patience | settings)))

    def read(offset: int, length: int | None) -> Iterator[bytes]:
        return registry.blob(NAME, LAYER, offset, length, caller_verifies=True)

    path, fetched = fetch_whole(store, LAYER, Source(read, registry.connections), Silent())
    assert path.read_bytes() == CONTENT
    assert list(store.leftovers()) == []
    return fetched


def asked_bytes(faulty: Faulty) -> int:
    """The number of bytes that requests asked for by Range."""
    ranges = [
        request["headers"]["Range"].removeprefix("bytes=").split("-") for request in faulty.requests("GET", BLOBS)
    ]
    return sum(int(last) - int(first) + 1 for first, last in ranges)


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_an_image_comes_over_as_many_connections_as_are_allowed(start: Start, store: Store, connections: int) -> None:
    faulty = start(SLOW)
    assert ingest(store, faulty, connections=connections) == SIZE
    requests = faulty.requests("GET", BLOBS)
    assert max(request["active"] for request in requests) == connections
    assert len(requests) == (1 if connections == 1 else 6)
    if connections > 1:
        assert asked_bytes(faulty) == SIZE


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "times": 2},
        {"status": 429, "headers": {"Retry-After": "1"}, "times": 1},
        {"reset": 1_000_000, "times": 1},
        {"cut": 1_234_567, "times": 1},
        {"stall": 2_000_000, "times": 1},
        {"headers": {"Content-Range": "bytes 0-9/24000000"}, "times": 1},
    ],
)
def test_a_fault_in_one_part_is_retried_in_that_part(start: Start, store: Store, fault: Mapping[str, Any]) -> None:
    faulty = start({"path": BLOBS, "only": SECOND, **fault}, SLOW)
    assert ingest(store, faulty) == SIZE
    asked = [request["headers"].get("Range") for request in faulty.requests("GET", BLOBS)]
    assert asked.count(f"bytes=0-{PART - 1}") == 1


def test_a_lasting_fault_in_one_part_ends_all_and_the_next_pull_goes_on(start: Start, store: Store) -> None:
    faulty = start({"path": BLOBS, "only": ["Range", rf"bytes={3 * PART}-.*"], "status": 500, "times": 4}, SLOW)
    with pytest.raises(HttpFailure, match=r"answered 500 \(attempt 4\)"):
        ingest(store, faulty)
    (partial,) = store.leftovers()
    kept = partial.read_bytes()
    assert kept == CONTENT[: len(kept)]
    assert len(kept) >= PART
    assert ingest(store, faulty) == SIZE - len(kept)


def test_retry_after_beyond_the_budget_ends_all_parts_at_once(start: Start, store: Store) -> None:
    faulty = start({"path": BLOBS, "only": SECOND, "status": 429, "headers": {"Retry-After": "900"}}, SLOW)
    with pytest.raises(RegistryFailure, match="too many requests") as caught:
        ingest(store, faulty)
    assert caught.value.fix.startswith("try again after ")
    assert [request["status"] for request in faulty.requests("GET", BLOBS)].count(429) == 1


def test_a_flipped_bit_in_one_part_costs_one_clean_fetch(start: Start, store: Store) -> None:
    faulty = start({"path": BLOBS, "only": SECOND, "flip": 77, "times": 1}, SLOW)
    assert ingest(store, faulty) == 2 * SIZE
    assert asked_bytes(faulty) == 2 * SIZE


def test_a_bit_that_is_always_flipped_is_an_integrity_failure_and_leaves_nothing(start: Start, store: Store) -> None:
    faulty = start({"path": BLOBS, "only": SECOND, "flip": 77}, SLOW)
    with pytest.raises(IntegrityFailure, match="content does not match its digest"):
        ingest(store, faulty)
    assert asked_bytes(faulty) == 2 * SIZE
    assert list(store.leftovers()) == []
    assert verify(store, Silent()) == (0, ())


@pytest.mark.parametrize("only", [FIRST, OTHERS])
def test_a_server_that_ignores_range_is_read_over_one_connection(start: Start, store: Store, only: list[str]) -> None:
    faulty = start({**SLOW, "only": only, "no_range": True}, SLOW)
    assert ingest(store, faulty) == SIZE


def test_a_redirect_that_expires_in_the_middle_leads_back_to_the_registry(start: Start, store: Store) -> None:
    target = {"Location": f"http://OTHER/v2/images/{NAME}{BLOBS}?sig=1"}
    faulty = start(
        {"path": BLOBS, "status": 307, "headers": target},
        {"path": "sig=1", "port": "other", "status": 403, "after": 3, "times": 1},
        {"path": "sig=1", "port": "other", "rate": 40_000_000},
    )
    assert ingest(store, faulty) == SIZE
    assert 2 <= len(faulty.requests("GET", BLOBS, host="main")) <= 5


def test_a_rate_limit_holds_for_all_connections_together(start: Start, store: Store) -> None:
    began = time.monotonic()
    ingest(store, start(SLOW), limit_rate=12_000_000)
    assert time.monotonic() - began >= 0.95 * SIZE / 12_000_000


@contextmanager
def begun_pull(store: Store, faulty: Faulty, wanted: int) -> Iterator[subprocess.Popen[bytes]]:
    """A pull in a separate process that has written at least this many bytes."""
    command = [sys.executable, "-c", PULL, str(faulty.address), str(store.root), str(LAYER.digest), str(SIZE)]
    deadline = time.monotonic() + 30
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            while sum(path.stat().st_size for path in store.leftovers()) < wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("wanted", [1_000_000, 9_000_000, 14_000_000])
def test_a_killed_pull_is_continued_and_few_bytes_come_twice(start: Start, store: Store, wanted: int) -> None:
    faulty = start({**SLOW, "rate": 8_000_000})
    with begun_pull(store, faulty, wanted) as process:
        process.send_signal(signal.SIGKILL)
    (partial,) = store.leftovers()
    kept = partial.read_bytes()
    assert len(kept) >= wanted
    assert kept == CONTENT[: len(kept)]
    assert ingest(store, faulty) == SIZE - len(kept)
    assert asked_bytes(faulty) <= SIZE + 5 * PART
    assert verify(store, Silent()) == (1, ())


def test_an_interrupted_pull_ends_at_once_although_its_connections_stand_still(start: Start, store: Store) -> None:
    faulty = start({"path": BLOBS, "only": OTHERS, "stall": 1_000_000}, SLOW)
    with begun_pull(store, faulty, PART) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert err.decode().count("Traceback") == 1
    assert err.decode().endswith("KeyboardInterrupt\n")
    assert len(list(store.leftovers())) == 1


def test_no_worker_outlives_a_pull(start: Start, store: Store) -> None:
    threads = threading.active_count()
    ingest(store, start(SLOW))
    assert threading.active_count() == threads

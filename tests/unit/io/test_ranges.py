"""Range arithmetic: whatever is asked and wherever it breaks, the bytes are right, and no Range lies outside."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory.errors import IntegrityFailure, OnlyWhole
from factory.io.http.client import Client, HttpSettings
from factory.io.http.stream import download
from factory.io.progress import Silent
from factory.store.fetch import pool as pool_module
from factory.store.fetch.pool import MEMORY, Source, rest

CONTENT = hashlib.shake_128(b"ranges").digest(200_000)
RANGE = re.compile(r"bytes=(\d+)-(\d+)")
ATTEMPTS = HttpSettings(connect_timeout=5, idle_timeout=5, budget=60, attempts=1000, backoff=0.0)

sizes = st.one_of(st.integers(1, 300), st.integers(1, len(CONTENT)))
cuts = st.lists(st.one_of(st.integers(0, 300), st.integers(0, len(CONTENT))), max_size=6)


class Breaking(ThreadingHTTPServer):
    """Serves the first ``size`` bytes of CONTENT. Each request takes one of the cuts: so many bytes, then it breaks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Ranged)
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.begin(0, [])

    def begin(self, size: int, cuts: list[int], *, ranges: bool = True) -> None:
        """A new document, and an empty record of what is asked: first and last byte, and how many were sent."""
        self.size = size
        self.cuts = list(cuts)
        self.ranges = ranges
        self.asked: list[tuple[int, int, int]] = []


class Ranged(BaseHTTPRequestHandler):
    """RFC 9110, 14: one range of bytes."""

    protocol_version = "HTTP/1.1"
    server: Breaking

    def do_GET(self) -> None:
        found = RANGE.fullmatch(self.headers.get("Range", "")) if self.server.ranges else None
        first, last = (int(found[1]), int(found[2])) if found else (0, self.server.size - 1)
        body = CONTENT[first : last + 1]
        with self.server.lock:
            cut = self.server.cuts.pop() if self.server.cuts else len(body)
            self.server.asked.append((first, last, min(cut, len(body))))
        self.send_response_only(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{last}/{self.server.size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = cut < len(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Breaking]:
    with Breaking() as started:
        thread = threading.Thread(target=started.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with closing(Client(ATTEMPTS)) as opened:
        yield opened


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@given(data=st.data(), size=sizes, cuts=cuts)
@quick
def test_a_download_that_breaks_anywhere_gives_exactly_the_bytes_that_were_asked_for(
    server: Breaking, client: Client, data: st.DataObject, size: int, cuts: list[int]
) -> None:
    offset = data.draw(st.integers(0, size), label="offset")
    length = data.draw(st.one_of(st.none(), st.integers(0, size - offset)), label="length")
    stop = size if length is None else offset + length
    server.begin(size, cuts)
    assert b"".join(download(client, server.url, size=size, offset=offset, length=length)) == CONTENT[offset:stop]
    at = offset
    for first, last, sent in server.asked:
        assert (first, last) == (at, stop - 1), "it goes on where it broke, and ends where it should"
        at += sent
    assert at == stop


@given(size=sizes, offset=st.integers(0, len(CONTENT)), cuts=cuts)
@quick
def test_without_ranges_the_rest_comes_from_the_start(
    server: Breaking, client: Client, size: int, offset: int, cuts: list[int]
) -> None:
    offset = min(offset, size)
    server.begin(size, cuts, ranges=False)
    assert b"".join(download(client, server.url, size=size, offset=offset)) == CONTENT[offset:size]
    assert all((first, last) == (0, size - 1) for first, last, _ in server.asked)
    server.begin(size, [], ranges=False)
    if 0 < offset < size - 1:
        with pytest.raises(OnlyWhole):
            list(download(client, server.url, size=size, offset=offset, length=1))


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70), st.integers(0, 2**63))
def test_ranges_outside_of_the_file_are_refused_without_a_request(
    server: Breaking, client: Client, offset: int, length: int, size: int
) -> None:
    if 0 <= offset <= offset + length <= size:
        return
    server.begin(0, [])
    with pytest.raises(IntegrityFailure, match="do not exist"):
        download(client, server.url, size=size, offset=offset, length=length)
    assert server.asked == []


@given(size=st.integers(0, 2**60), connections=st.integers(1, 10))
def test_parts_are_neither_empty_nor_more_than_memory_holds(size: int, connections: int) -> None:
    part = Source(lambda _offset, _length: (), connections).part_size(size)
    assert part > 0
    assert part * (connections + 1) <= MEMORY


@pytest.mark.slow
@given(
    data=st.data(),
    size=sizes,
    cuts=cuts,
    connections=st.integers(1, 5),
    part=st.integers(5_000, 60_000),
    fast=st.sampled_from([0.0, 1e18]),
)
@quick
def test_parts_that_break_anywhere_cover_all_of_it_without_overlap(
    server: Breaking,
    client: Client,
    *,
    data: st.DataObject,
    size: int,
    cuts: list[int],
    connections: int,
    part: int,
    fast: float,
) -> None:
    """fast: bytes a second above which the network counts as fast; here always, or never."""
    start = data.draw(st.integers(0, size), label="start")
    server.begin(size, cuts)
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int | None) -> Iterator[bytes]:
        asked.append((offset, size - offset if length is None else length))
        return download(client, server.url, size=size, offset=offset, length=length)

    with pytest.MonkeyPatch.context() as patched:
        for name, value in {
            "WORTH_IT": 0,
            "_SMALLEST": part,
            "_LARGEST": part,
            "_ALONE": 3 * part,
            "_FAST": fast,
        }.items():
            patched.setattr(pool_module, name, value)
        blocks = list(rest(Source(read, connections), start, size, Silent()))
    assert b"".join(blocks) == CONTENT[start:size]
    at = start
    for offset, length in sorted(asked):
        assert (offset, length > 0) == (at, True)
        at += length
    assert at == size
    assert all(start <= first <= last < size for first, last, _ in server.asked)

"""A proxy before a registry that is as slow as a network, and knows what was asked.

    proxy.py PORT UPSTREAM DELAY RATE each|all

DELAY: seconds before each answer. RATE: bytes a second of the bodies, on each connection or on all of them together;
0 for no limit. It is for clients that only read: requests have no body. GET /-/requests gives what was asked since the
last time, as JSON, when all of it is answered: method, path, range, status, and how many bytes of the body were sent.

Unlike the tests' proxy it streams, so that it is not what limits; Link.speed tells whether that is so.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_BLOCK = 1024 * 1024
_PACED_BLOCK = 64 * 1024  # with a rate: small, so that the bytes come evenly
_HOP = {"connection", "transfer-encoding", "keep-alive", "server", "date"}
_ASKED = "/-/requests"
_PATIENCE = 30.0  # seconds for requests on their way to end


@dataclass
class Asked:
    """One request and what became of it."""

    method: str
    path: str
    range: str
    status: int = 0
    sent: int = 0


class Record:
    """What was asked since the last time, by all connections."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: list[Asked] = []
        self._active = 0

    @contextlib.contextmanager
    def keeping(self, asked: Asked) -> Iterator[Asked]:
        """Keep a request while it is answered."""
        with self._changed:
            self._asked.append(asked)
            self._active += 1
        try:
            yield asked
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def take(self) -> list[Asked]:
        """All requests, once none is on its way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._active, _PATIENCE)
            taken, self._asked = self._asked, []
        return taken


class Line:
    """What all connections share: bytes leave one after the other, at so many a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # the moment when all that was sent before has left

    def send(self, count: int) -> None:
        """Wait until so many bytes more have left."""
        with self._lock:
            left = self._free = max(self._free, time.monotonic()) + count / self._rate
        time.sleep(max(0.0, left - time.monotonic()))


class Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to the registry for it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    record = Record()
    upstream: str
    delay: float
    rate: float
    line: Line | None = None
    connection: socket.socket

    def setup(self) -> None:
        """A connection begins."""
        super().setup()
        self._registry = http.client.HTTPConnection(self.upstream, timeout=60)

    def finish(self) -> None:
        """It ends."""
        self._registry.close()
        super().finish()

    def do_GET(self) -> None:
        """Pass on, or tell what was asked."""
        if self.path == _ASKED:
            body = json.dumps([asdict(asked) for asked in self.record.take()]).encode()
            self._head(200, [("Content-Length", str(len(body)))])
            self.wfile.write(body)
            return
        with self.record.keeping(Asked(self.command, self.path, self.headers.get("Range", ""))) as asked:
            self._pass_on(asked)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _pass_on(self, asked: Asked) -> None:
        began = time.monotonic()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        self._registry.request(self.command, self.path, headers=headers)
        with self._registry.getresponse() as reply:
            asked.status = reply.status
            time.sleep(max(0.0, began + self.delay - time.monotonic()))
            self._head(reply.status, [pair for pair in reply.getheaders() if pair[0].lower() not in _HOP])
            try:
                self._send(reply, asked)
            except OSError:  # the client is gone
                self._registry.close()
                self.close_connection = True

    def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _send(self, reply: http.client.HTTPResponse, asked: Asked) -> None:
        block = memoryview(bytearray(_PACED_BLOCK if self.rate else _BLOCK))
        began = time.monotonic()
        while count := reply.readinto(block):
            if self.line:
                self.line.send(count)
            self.connection.sendall(block[:count])
            asked.sent += count
            if self.rate and not self.line:
                time.sleep(max(0.0, began + asked.sent / self.rate - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing: the record tells it."""


class Server(ThreadingHTTPServer):
    """Clients that are killed are part of the play."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Link:
    """A running proxy."""

    host: str

    def requests(self) -> list[Asked]:
        """What was asked since the last call; waits for answers on their way."""
        connection = http.client.HTTPConnection(self.host, timeout=2 * _PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", _ASKED)
            found: list[dict[str, Any]] = json.loads(connection.getresponse().read())
        return [Asked(**fields) for fields in found]

    def speed(self, path: str) -> float:
        """Bytes a second at which this process reads a document through the proxy, and does nothing else."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        block = memoryview(bytearray(_BLOCK))
        began, seen = time.monotonic(), 0
        with contextlib.closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            while count := reply.readinto(block):
                seen += count
        return seen / (time.monotonic() - began)


@contextlib.contextmanager
def through(
    folder: Path, upstream: str, *, delay: float = 0.0, rate: float = 0.0, shared: bool = False
) -> Iterator[Link]:
    """Run a proxy in a process of its own until the block ends. delay in seconds, rate in bytes a second.

    shared: the rate is that of all connections together.
    """
    from tests.servers import free_port, running  # noqa: PLC0415 - the script has only the standard library

    port = free_port()
    of = "all" if shared else "each"
    script = str(Path(__file__).resolve())
    with running([sys.executable, script, str(port), upstream, str(delay), str(rate), of], port, folder) as server:
        yield Link(server.host)


def main(port: int, upstream: str, delay: float, rate: float, *, shared: bool) -> None:
    """Serve until the process is ended."""
    Handler.line = Line(rate) if shared and rate else None
    Handler.upstream, Handler.delay, Handler.rate = upstream, delay, rate
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), shared=sys.argv[5] == "all")

"""A proxy in front of a registry that simulates a slow network and records requests.

    proxy.py PORT UPSTREAM DELAY RATE each|all

DELAY: seconds before each response. RATE: bytes per second of bodies, for each connection or all together; 0 for no
limit. Only for reading clients: requests have no body. GET /-/requests waits for running requests and returns those
since the last call as JSON: method, path, range, status, and the number of body bytes sent.

Unlike the tests' proxy it streams, so that it is not the bottleneck; Link.speed measures that.
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
_PACED_BLOCK = 64 * 1024  # with a rate limit: small, for an even flow
_HOP = {"connection", "transfer-encoding", "keep-alive", "server", "date"}
_ASKED = "/-/requests"
_PATIENCE = 30.0  # seconds for running requests to end


@dataclass
class Asked:
    """One request and its result."""

    method: str
    path: str
    range: str
    status: int = 0
    sent: int = 0


class Record:
    """Requests on all connections since the last call."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: list[Asked] = []
        self._active = 0

    @contextlib.contextmanager
    def keeping(self, asked: Asked) -> Iterator[Asked]:
        """Record a request while it is being answered."""
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
        """Wait until no request is running and return all requests."""
        with self._changed:
            self._changed.wait_for(lambda: not self._active, _PATIENCE)
            taken, self._asked = self._asked, []
        return taken


class Line:
    """Limits the rate of all connections together."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # time at which all earlier bytes have been sent

    def send(self, count: int) -> None:
        """Wait until `count` more bytes may be sent."""
        with self._lock:
            left = self._free = max(self._free, time.monotonic()) + count / self._rate
        time.sleep(max(0.0, left - time.monotonic()))


class Handler(BaseHTTPRequestHandler):
    """Handles one client connection with its own connection to the registry."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    record = Record()
    upstream: str
    delay: float
    rate: float
    line: Line | None = None
    connection: socket.socket

    def setup(self) -> None:
        """Open the connection to the registry."""
        super().setup()
        self._registry = http.client.HTTPConnection(self.upstream, timeout=60)

    def finish(self) -> None:
        """Close the connection to the registry."""
        self._registry.close()
        super().finish()

    def do_GET(self) -> None:
        """Forward a request, or return the recorded requests."""
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
            except OSError:  # the client has disconnected
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
        """Log nothing; requests are recorded instead."""


class Server(ThreadingHTTPServer):
    """Ignores errors of connections: clients are killed on purpose."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing."""


@dataclass(frozen=True)
class Link:
    """A running proxy."""

    host: str

    def requests(self) -> list[Asked]:
        """Return the requests since the last call, after waiting for running ones."""
        connection = http.client.HTTPConnection(self.host, timeout=2 * _PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", _ASKED)
            found: list[dict[str, Any]] = json.loads(connection.getresponse().read())
        return [Asked(**fields) for fields in found]

    def speed(self, path: str) -> float:
        """Return the bytes per second at which this process can read a document through the proxy."""
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
    """Run a proxy in a separate process until the block ends. delay in seconds, rate in bytes per second.

    shared: the rate applies to all connections together.
    """
    from tests.servers import free_port, running  # noqa: PLC0415 - the script itself uses only the standard library

    port = free_port()
    of = "all" if shared else "each"
    script = str(Path(__file__).resolve())
    with running([sys.executable, script, str(port), upstream, str(delay), str(rate), of], port, folder) as server:
        yield Link(server.host)


def main(port: int, upstream: str, delay: float, rate: float, *, shared: bool) -> None:
    """Serve until the process is terminated."""
    Handler.line = Line(rate) if shared and rate else None
    Handler.upstream, Handler.delay, Handler.rate = upstream, delay, rate
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), shared=sys.argv[5] == "all")

"""A forward proxy for tests that requires a login, and answers every request to a host below .invalid itself."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

USER, PASSWORD = "me", "s3/cr@t"  # people write such passwords into addresses as they are
ANSWER = b"fetched through the proxy\n"


@dataclass
class LoginProxy:
    """A running proxy. asked: what it was asked for with the right login. refused: requests without it."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"


@contextlib.contextmanager
def login_proxy() -> Iterator[LoginProxy]:
    """Run a proxy until the block ends."""
    running = LoginProxy()
    expected = "Basic " + base64.b64encode(f"{USER}:{unquote(PASSWORD)}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _is_refused(self) -> bool:
            if self.headers.get_all("Proxy-Authorization") == [expected]:
                running.asked.append(f"{self.command} {self.path}")
                return False
            running.refused.append(f"{self.command} {self.path} {self.headers.get('Proxy-Authorization')}")
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True

        def do_GET(self) -> None:
            if self._is_refused():
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def do_CONNECT(self) -> None:
            if self._is_refused():
                return
            _, _, port = self.path.rpartition(":")
            with socket.create_connection(("127.0.0.1", int(port))) as origin:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(origin, self.connection), daemon=True)
                back.start()
                _copy(self.connection, origin)
                back.join()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)

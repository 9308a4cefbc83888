"""A local proxy that adds a login on the way to the real one, so that a build can use it without knowing the login.

It listens on 127.0.0.1 while the build runs, and only accepts requests with a password of its own, because other users
of the machine could connect too. That password is worthless after the build. Specifications: RFC 9110 (sections 7.6,
9.3.6, and 11.7).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import secrets
import select
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from factory.errors import MachineFailure
from factory.io.http.proxies import Proxy
from factory.io.threads import started

_END = b"\r\n\r\n"
_HEAD = 64 * 1024  # bytes of a request line and its headers
_BLOCK = 64 * 1024
_IDLE = 600.0  # seconds without a byte
_CONNECT = 30.0
_USER = "build"
_CLOSE = b"Connection: close"
_PRIVATE = (b"proxy-authorization:", b"proxy-connection:", b"connection:")
_REFUSED = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="singfactory"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
)
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def relays(proxies: Mapping[str, Proxy]) -> Iterator[dict[str, str]]:
    """Run a relay for each HTTP proxy while the block runs. Yields the relays' addresses under the same names."""
    with contextlib.ExitStack() as stack:
        started = {proxy: stack.enter_context(_relay(proxy)) for proxy in set(proxies.values())}
        yield {name: started[proxy] for name, proxy in proxies.items()}


@contextlib.contextmanager
def _relay(proxy: Proxy) -> Iterator[str]:
    with _Server(proxy) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        if not started(thread):
            raise MachineFailure(
                "no thread can be started for the proxy's relay",
                why="the limit of processes or of memory is reached",
                fix="raise ulimit -u or -v, or build on another machine",
            )
        try:
            yield f"http://{_USER}:{server.password}@127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # a program that the build left behind may keep a connection open

    def __init__(self, proxy: Proxy) -> None:
        self.upstream = proxy.address
        self.password = secrets.token_hex(16)
        self.expected = _basic(f"{_USER}:{self.password}")
        self.login = _basic(unquote(proxy.login))
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a broken connection is the client's to report."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(_IDLE)
        head, rest = _head(self.request)
        lines = head.split(b"\r\n")
        if not any(self._is_permitted(line) for line in lines[1:]):
            self.request.sendall(_REFUSED)
            return
        kept = _passed_on(lines)
        is_tunnel = lines[0].upper().startswith(b"CONNECT ")
        if not is_tunnel:
            kept.append(_CLOSE)  # the next request on this connection would lack the login
        try:
            upstream = socket.create_connection(self.server.upstream, _CONNECT)
        except OSError:
            self.request.sendall(_UNREACHABLE)
            return
        with upstream:
            upstream.settimeout(_IDLE)
            upstream.sendall(b"\r\n".join([*kept, b"Proxy-Authorization: " + self.server.login, b"", b""]) + rest)
            activity = _Activity()
            sending = threading.Thread(target=_copy, args=(self.request, upstream, activity), daemon=True)
            if not started(sending):
                self.request.sendall(_UNREACHABLE)
                return
            if not is_tunnel:
                self._answer(upstream)
            _copy(upstream, self.request, activity)

    def _answer(self, upstream: socket.socket) -> None:
        """Pass on the head of an answer, and say in it that the connection ends: not every proxy says so itself."""
        head, rest = _head(upstream)
        while head.partition(b" ")[2].startswith(b"1"):  # an interim answer (RFC 9110, section 15.2)
            self.request.sendall(head + _END)
            head, rest = _head(upstream, rest)
        if head:
            self.request.sendall(b"\r\n".join([*_passed_on(head.split(b"\r\n")), _CLOSE, b"", b""]) + rest)

    def _is_permitted(self, line: bytes) -> bool:
        name, _, text = line.partition(b":")
        return name.strip().lower() == b"proxy-authorization" and hmac.compare_digest(
            text.strip(), self.server.expected
        )


def _received(source: socket.socket, activity: _Activity) -> bytes:
    """Return the next bytes; none if the source has ended, or nothing has moved for too long."""
    ready = select.poll()
    ready.register(source, select.POLLIN)
    while not ready.poll(_IDLE * 1000):
        if activity.is_over:
            return b""
    return source.recv(_BLOCK)


def _head(source: socket.socket, received: bytes = b"") -> tuple[bytes, bytes]:
    """Read the head of a message that begins with ``received``; return it, and the bytes after it."""
    while _END not in received and len(received) <= _HEAD:
        block = source.recv(_BLOCK)
        if not block:
            break
        received += block
    head, _, rest = received.partition(_END)
    return head, rest


def _passed_on(lines: Iterable[bytes]) -> list[bytes]:
    """Return the lines of a head without those that concern one connection only (RFC 9110, section 7.6.1)."""
    return [line for line in lines if not line.lower().startswith(_PRIVATE)]


def _basic(login: str) -> bytes:
    return b"Basic " + base64.b64encode(login.encode())


class _Activity:
    """When the last byte of a connection moved, in either direction: a download sends nothing for a long time."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.last >= _IDLE


def _copy(source: socket.socket, target: socket.socket, activity: _Activity) -> None:
    """Copy until the source ends, then say so to the target. Ends as well when nothing moves in either direction."""
    with contextlib.suppress(OSError):
        while block := _received(source, activity):
            target.sendall(block)
            activity.last = time.monotonic()
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)

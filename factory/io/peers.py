"""Connections between the nodes of one job: TCP, and a secret that only the job's processes know.

Both ends prove that they know the secret before anything else is sent (a challenge with HMAC-SHA-256). A stranger who
connects learns nothing, and costs one thread for some seconds. What is sent is not encrypted.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

from factory.errors import FactoryError
from factory.io import threads

SECRET = 32  # bytes
CONNECT = 2.0  # seconds to connect to one address
IDLE = 5.0  # seconds without a byte after which the other end counts as gone
WELCOME = 5.0  # seconds in which a peer must have proved what it knows
_HELLO = b"singfactory-1\n"
_NONCE = 16
_PROOF = 32
_SLICE = 128 * 1024  # bytes
_MOST = 64  # connections at a time, strangers included
_REQUEST = 64  # bytes at most
_POLL = 0.2  # seconds between looks whether to stop
_ENDING = 2.0  # seconds for the threads of connections to end


class PeerLost(FactoryError):
    """The other end is unreachable, gone, silent, or does not know the secret."""

    exit_code = 4
    retryable = True


class Connection:
    """An open connection. Every wait for the other end has a time limit, and raises PeerLost."""

    def __init__(self, opened: socket.socket, name: str) -> None:
        self._socket = opened
        self.name = name
        self._until: float | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a thread that waits for it gets PeerLost."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, *parts: bytes) -> None:
        """Send all bytes."""
        try:
            for part in parts:
                left = memoryview(part)
                while left:  # the time limit is for each slice
                    self._socket.sendall(left[:_SLICE])
                    left = left[_SLICE:]
        except OSError as error:
            raise PeerLost(f"{self.name} does not take data", why=str(error)) from error

    def receive(self, size: int) -> bytearray:
        """Return exactly ``size`` bytes."""
        data = bytearray(size)
        left = memoryview(data)
        try:
            while left:
                if self._until is not None:
                    self._socket.settimeout(min(IDLE, max(self._until - time.monotonic(), 1e-3)))
                count = self._socket.recv_into(left)
                if count == 0:
                    raise PeerLost(f"{self.name} ended the connection")
                left = left[count:]
        except OSError as error:
            raise PeerLost(f"{self.name} sends nothing", why=str(error)) from error
        return data

    def limit(self, seconds: float | None) -> None:
        """Allow so many seconds for everything that is received from now on; None: for each wait as usual."""
        self._until = None if seconds is None else time.monotonic() + seconds
        self._socket.settimeout(IDLE)

    def waits(self) -> bool:
        """Return whether the other end has neither sent anything nor left."""
        self._socket.setblocking(False)  # noqa: FBT003 - socket's own name for it
        try:
            return not isinstance(self._socket.recv(1, socket.MSG_PEEK), bytes)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(IDLE)


def dial(name: str, addresses: Sequence[str], port: int, secret: bytes, request: bytes) -> Connection:
    """Connect to a peer at the first of its addresses that answers, and send it a request. Raises PeerLost."""
    failure: Exception | None = None
    for address in addresses:
        try:
            opened = socket.create_connection((address, port), CONNECT)
        except OSError as error:
            failure = error
            continue
        _prepare(opened)
        connection = Connection(opened, name)
        try:
            introduce(connection, secret, request)
        except BaseException:
            connection.close()
            raise
        return connection
    raise PeerLost(f"{name} cannot be reached", why=str(failure or "it has no address"))


def introduce(connection: Connection, secret: bytes, request: bytes) -> None:
    """Prove to a listener that this process knows the secret, and check that the listener does. Raises PeerLost."""
    hello = bytes(connection.receive(len(_HELLO) + _NONCE))
    if hello[: len(_HELLO)] != _HELLO:
        raise PeerLost(f"{connection.name} is another program")
    mine = secrets.token_bytes(_NONCE)
    told = bytes([len(request)]) + request
    connection.send(mine + proof(secret, b"client", hello, mine, told) + told)
    if not hmac.compare_digest(connection.receive(_PROOF), proof(secret, b"server", hello, mine, told)):
        raise PeerLost(f"{connection.name} does not know the job's secret")


def proof(secret: bytes, *parts: bytes) -> bytes:
    """Return what only those who know the secret can compute from these parts."""
    return hmac.new(secret, b"\0".join(parts), hashlib.sha256).digest()


def _prepare(opened: socket.socket) -> None:
    opened.settimeout(IDLE)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Listener:
    """Answers peers that know the secret, each in a thread of its own.

    serve: called with the connection and the request; it is closed afterwards. PeerLost ends it silently.
    """

    def __init__(self, address: str, secret: bytes, serve: Callable[[Connection, bytes], None]) -> None:
        """Listen on a free port of an address of this machine ('': all of them). Raises PeerLost."""
        self._secret = secret
        self._serve = serve
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._socket = socket.create_server((address, 0), family=family, backlog=_MOST)
        except OSError as error:
            raise PeerLost("no port to listen on", why=str(error)) from error
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(_POLL)
        self._stopping = False
        self._guard = threading.Lock()
        self._open: dict[threading.Thread, Connection] = {}
        self._accepting: threading.Thread | None = None

    def start(self) -> bool:
        """Begin to answer, also after ``stop``. Return False if the system allows no thread for it."""
        self._stopping = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        return threads.started(self._accepting)

    def stop(self) -> None:
        """End all connections and threads. Peers that connect from now on wait for ``start``, in the backlog."""
        self._stopping = True
        if self._accepting is not None and self._accepting.ident is not None:
            self._accepting.join()
        with self._guard:
            left = dict(self._open)
        for connection in left.values():
            connection.close()
        patience = time.monotonic() + _ENDING
        for thread in left:
            thread.join(max(0.0, patience - time.monotonic()))

    def close(self) -> None:
        """Stop, and give up the port."""
        self.stop()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                opened, _ = self._socket.accept()
            except OSError:  # nobody within _POLL
                continue
            with self._guard:
                if len(self._open) >= _MOST:
                    opened.close()
                    continue
                connection = Connection(opened, "a peer")
                thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
                self._open[thread] = connection
            if not threads.started(thread):
                self._forget(thread, connection)

    def _answer(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(PeerLost, OSError):
                _prepare(connection._socket)  # noqa: SLF001 - of this module
                request = self._welcome(connection)
                self._serve(connection, request)
        finally:
            self._forget(threading.current_thread(), connection)

    def _welcome(self, connection: Connection) -> bytes:
        hello = _HELLO + secrets.token_bytes(_NONCE)
        connection.limit(WELCOME)  # or strangers who send a byte now and then would take up all places
        connection.send(hello)
        theirs, shown = bytes(connection.receive(_NONCE)), connection.receive(_PROOF)
        size = connection.receive(1)
        if size[0] > _REQUEST:
            raise PeerLost("the request is too long")
        told = bytes(size) + bytes(connection.receive(size[0]))
        if not hmac.compare_digest(shown, proof(self._secret, b"client", hello, theirs, told)):
            raise PeerLost("the peer does not know the job's secret")
        connection.limit(None)
        connection.send(proof(self._secret, b"server", hello, theirs, told))
        return told[1:]

    def _forget(self, thread: threading.Thread, connection: Connection) -> None:
        connection.close()
        with self._guard:
            self._open.pop(thread, None)


def addresses(near: str) -> tuple[str, ...]:
    """Return this machine's addresses for its peers: on the way to ``near`` first, then those of its host name."""
    found = []
    if near:
        with contextlib.suppress(OSError):
            family = socket.AF_INET6 if ":" in near else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
                probe.connect((near, 9))
                found.append(str(probe.getsockname()[0]))
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)]
    return tuple(dict.fromkeys(found))

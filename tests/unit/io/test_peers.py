from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator

import pytest

from factory.io import peers
from factory.io.peers import Connection, Listener, PeerLost

SECRET = secrets.token_bytes(peers.SECRET)
HERE = "127.0.0.1"


@contextlib.contextmanager
def listening() -> Iterator[tuple[Listener, list[bytes]]]:
    """A peer that repeats each request."""
    seen: list[bytes] = []

    def serve(connection: Connection, request: bytes) -> None:
        seen.append(request)
        connection.send(request)

    listener = Listener(HERE, SECRET, serve)
    assert listener.start()
    try:
        yield listener, seen
    finally:
        listener.close()


def ask(port: int, secret: bytes = SECRET, request: bytes = b"hello") -> bytes:
    with peers.dial("node1", [HERE], port, secret, request) as connection:
        return bytes(connection.receive(len(request)))


def test_who_knows_the_secret_is_answered() -> None:
    with listening() as (listener, _):
        assert ask(listener.port) == b"hello"


@pytest.mark.parametrize(
    "secret",
    [b"", SECRET[:-1], bytes(peers.SECRET), secrets.token_bytes(peers.SECRET)],
    ids=["none", "short", "zeros", "another"],
)
def test_who_does_not_know_the_secret_gets_nothing_and_hinders_nobody(secret: bytes) -> None:
    with listening() as (listener, seen):
        with pytest.raises(PeerLost):
            ask(listener.port, secret)
        assert seen == []
        assert ask(listener.port) == b"hello"


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(48) + b"\xff", secrets.token_bytes(5000)],
    ids=["nothing", "http", "zeros", "noise"],
)
def test_a_stranger_learns_nothing_and_hinders_nobody(sent: bytes) -> None:
    with listening() as (listener, seen):
        strangers = [socket.create_connection((HERE, listener.port)) for _ in range(20)]
        with contextlib.ExitStack() as stack:
            for stranger in strangers:
                stack.enter_context(stranger)
                with contextlib.suppress(OSError):
                    stranger.sendall(sent)
            assert ask(listener.port) == b"hello"
        assert seen == [b"hello"]


def test_a_stranger_who_sends_a_byte_now_and_then_does_not_keep_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "WELCOME", 0.5)
    with listening() as (listener, _), socket.create_connection((HERE, listener.port)) as stranger:
        stranger.settimeout(10)
        assert stranger.recv(100)
        sent = 0
        with contextlib.suppress(OSError):  # the other end is closed
            while sent < 40:  # of the 48 bytes
                stranger.sendall(b"x")
                sent += 1
                time.sleep(0.1)
        assert sent < 40


def test_a_recorded_introduction_does_not_work_twice() -> None:
    with listening() as (listener, seen):
        hello = b"singfactory-1\n" + bytes(16)
        told = b"\5hello"
        recorded = bytes(16) + peers.proof(SECRET, b"client", hello, bytes(16), told) + told
        with socket.create_connection((HERE, listener.port)) as stranger:
            stranger.sendall(recorded)
            while stranger.recv(4096):
                pass
        assert seen == []


def test_a_server_that_does_not_know_the_secret_is_refused() -> None:
    with socket.create_server((HERE, 0)) as server:
        client = socket.create_connection(server.getsockname())
        taken, _ = server.accept()
        with client, taken:
            taken.sendall(b"singfactory-1\n" + bytes(16) + bytes(32))
            with pytest.raises(PeerLost, match="secret"):
                peers.introduce(Connection(client, "node1"), SECRET, b"hello")


def test_an_address_where_nobody_listens_is_an_error_and_the_next_one_is_tried() -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(PeerLost, match="cannot be reached"):
        peers.dial("node1", [HERE], port, SECRET, b"")
    with (
        listening() as (listener, _),
        peers.dial("node1", ["127.0.0.2", HERE], listener.port, SECRET, b"x") as connection,
    ):
        assert connection.receive(1) == b"x"


def test_a_listener_that_pauses_answers_later() -> None:
    with listening() as (listener, _):
        listener.stop()
        assert listener.start()
        assert ask(listener.port) == b"hello"


def test_the_first_address_is_the_one_on_the_way_to_the_others() -> None:
    assert peers.addresses(HERE)[0] == HERE
    assert isinstance(peers.addresses(""), tuple)

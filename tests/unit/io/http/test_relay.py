from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
import requests

from factory.io.http.proxies import Proxy
from factory.io.http.relay import relays
from tests.login_proxy import ANSWER, PASSWORD, LoginProxy, login_proxy


@pytest.fixture
def upstream() -> Iterator[LoginProxy]:
    with login_proxy() as running:
        yield running


@pytest.fixture
def relay(upstream: LoginProxy) -> Iterator[str]:
    with relays({"http_proxy": Proxy.parse(upstream.address)}) as running:
        yield running["http_proxy"]


def asked_through(proxy: str, url: str) -> requests.Response:
    session = requests.Session()
    session.trust_env = False
    return session.get(url, proxies={"http": proxy, "https": proxy}, timeout=5)


def test_a_request_gets_the_login_on_its_way(upstream: LoginProxy, relay: str) -> None:
    assert asked_through(relay, "http://files.invalid/data").content == ANSWER
    assert (upstream.asked, upstream.refused) == (["GET http://files.invalid/data"], [])
    assert PASSWORD not in relay


def test_several_requests_on_one_connection_all_get_it(upstream: LoginProxy, relay: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for number in range(5):
            found = session.get(f"http://files.invalid/{number}", proxies={"http": relay}, timeout=5)
            assert (found.content, found.headers["Connection"]) == (ANSWER, "close")
    assert (len(upstream.asked), upstream.refused) == (5, [])


def test_a_tunnel_gets_the_login_and_carries_any_bytes(upstream: LoginProxy, relay: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as origin:

        def echo() -> None:
            connection, _ = origin.accept()
            with connection:
                while block := connection.recv(4096):
                    connection.sendall(block[::-1])

        threading.Thread(target=echo, daemon=True).start()
        place = Proxy.parse(relay)
        with socket.create_connection(place.address, 5) as tunnel:
            target = f"files.invalid:{origin.getsockname()[1]}"
            login = base64.b64encode(place.login.encode()).decode()
            tunnel.sendall(f"CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic {login}\r\n\r\n".encode())
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
            tunnel.sendall(b"\0abc")
            assert tunnel.recv(4096) == b"cba\0"
    assert upstream.asked == [f"CONNECT {target}"]


@pytest.mark.parametrize("login", ["", "build:wrong@", "other:{password}@"])
def test_nobody_else_can_use_a_relay(upstream: LoginProxy, relay: str, login: str) -> None:
    place = Proxy.parse(relay)
    address = f"http://{login.format(password=place.login.partition(':')[2])}{place.place}"
    assert asked_through(address, "http://files.invalid/data").status_code == 407
    assert (upstream.asked, upstream.refused) == ([], [])


def test_a_proxy_that_is_down_is_a_gateway_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with relays({"http_proxy": Proxy.parse(f"http://me:x@127.0.0.1:{port}")}) as running:
        assert asked_through(running["http_proxy"], "http://files.invalid/").status_code == 502


def test_a_relay_is_gone_after_its_block_and_listens_only_here(upstream: LoginProxy) -> None:
    proxy = Proxy.parse(upstream.address)
    with relays({"http_proxy": proxy, "https_proxy": proxy}) as running:
        assert running["http_proxy"] == running["https_proxy"], "one relay for each proxy"
        host, port = Proxy.parse(running["http_proxy"]).address
        assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), 5)


def test_a_head_without_an_end_is_refused(relay: str) -> None:
    with socket.create_connection(Proxy.parse(relay).address, 5) as client:
        client.sendall(b"GET http://files.invalid/ HTTP/1.1\r\nX: " + b"x" * 70_000)
        assert client.recv(4096).startswith(b"HTTP/1.1 407 ")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET http://files.invalid/data HTTP/1.1", "CONNECT files.invalid:443 HTTP/1.1"])
def test_a_download_that_takes_longer_than_the_idle_time_arrives_whole(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The client sends nothing meanwhile; a proxy would take the end of its stream for a broken connection."""
    monkeypatch.setattr("factory.io.http.relay._IDLE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                while b"\r\n\r\n" not in connection.recv(4096):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                for _ in range(10):
                    connection.settimeout(0.1)
                    with contextlib.suppress(OSError):
                        assert connection.recv(1) == b"x", "the relay has ended the client's stream"
                    connection.sendall(b"x")

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"
        with relays({"http_proxy": Proxy.parse(address)}) as found:
            place = Proxy.parse(found["http_proxy"])
            with socket.create_connection(place.address, 5) as client:
                login = base64.b64encode(place.login.encode()).decode()
                client.sendall(f"{method}\r\nProxy-Authorization: Basic {login}\r\n\r\n".encode())
                received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.endswith(b"\r\n\r\n" + b"x" * 10)

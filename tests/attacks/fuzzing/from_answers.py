"""Targets: whole answers of a server over HTTP, taken by the real client over the loopback device.

Every host name leads to the server of the test, whatever an answer says: nothing else is ever asked.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import socket
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from factory.errors import FactoryError
from factory.io.http.client import Client, HttpSettings
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Credential, Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.endpoint import Endpoint
from tests.attacks.fuzzing.target import Target

_HOST = "localhost:5000"
_SETTINGS = HttpSettings(connect_timeout=2.0, idle_timeout=2.0, budget=0.0, attempts=1, backoff=0.0)


_AND_THEN = b"\n=====\n"  # what follows is the answer of the token service


class _Server:
    """Answers every request with the same bytes, one for a token with others, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        atexit.register(self._listener.close)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2.0)
                asked = b""
                while b"\r\n\r\n" not in asked and (block := connection.recv(65536)):
                    asked += block
                usual, _, token = self.answer.partition(_AND_THEN)
                connection.sendall(token if token and b"/token" in asked.partition(b"\r\n")[0] else usual)


@lru_cache
def _server() -> _Server:
    server = _Server()
    resolve = socket.getaddrinfo

    def here(_host: object, _port: object, *others: Any, **named: Any) -> Any:
        return resolve("127.0.0.1", server.port, *others, **named)

    socket.getaddrinfo = here  # type: ignore[assignment]
    return server


def _registry() -> DistributionRegistry:
    given = {_HOST: Credential("user", "password")}
    address = RegistryAddress.parse(f"http://{_HOST}/images")
    return DistributionRegistry(address, settings=_SETTINGS, keychain=Keychain(given=given))


def _whole(data: bytes, _place: Path) -> None:
    _server().answer = data
    registry = _registry()
    blob = Descriptor("", Digest.of(b"blob"), 4)
    calls: tuple[Callable[[], object], ...] = (
        lambda: registry.tags("tool"),
        lambda: registry.head("tool", "1.0-1"),
        lambda: registry.manifest("tool", "latest"),
        lambda: b"".join(registry.blob("tool", blob)),
        lambda: b"".join(registry.blob("tool", Descriptor("", blob.digest, 100), 2, 2)),
        lambda: registry.has_blob("tool", blob),
        lambda: registry.referrers("tool", blob.digest),
        registry.check_login,
    )
    for call in calls:
        with contextlib.suppress(FactoryError):
            call()


def _answer(head: str, body: bytes = b"", *, length: bool = True) -> bytes:
    size = f"Content-Length: {len(body)}\n" if length else ""
    return f"HTTP/1.1 {head}\n{size}\n".replace("\n", "\r\n").encode() + body


def _answers(_place: Path) -> Sequence[bytes]:
    manifest = "application/vnd.oci.image.manifest.v1+json"
    index = "application/vnd.oci.image.index.v1+json"
    token = b'{"token": "abc.def", "access_token": "x", "expires_in": 300, "issued_at": "2024-01-01T00:00:00Z"}'
    bearer = 'Bearer realm="http://localhost:5000/token",service="s",scope="repository:images/tool:pull"'
    return (
        _answer('200 OK\nLink: </v2/x?n=1&last=a>; rel="next"', b'{"name": "tool", "tags": ["1.0-1", "latest"]}'),
        _answer(f"200 OK\nContent-Type: {manifest}\nDocker-Content-Digest: {Digest.of(b'x')}", b'{"schemaVersion": 2}'),
        _answer(f"200 OK\nContent-Type: {index}", b'{"schemaVersion": 2, "manifests": []}'),
        _answer(f"401 Unauthorized\nWWW-Authenticate: {bearer}") + _AND_THEN + _answer("200 OK", token),
        _answer("401 Unauthorized\nWWW-Authenticate: Basic realm=x", b'{"errors": [{"code": "UNAUTHORIZED"}]}'),
        _answer("200 OK", token),
        _answer("206 Partial Content\nContent-Range: bytes 2-3/100", b"ob"),
        _answer("307 Temporary Redirect\nLocation: http://cdn.example/blob?sig=x"),
        _answer("429 Too Many Requests\nRetry-After: 1"),
        _answer("200 OK\nTransfer-Encoding: chunked", b"4\r\nblob\r\n0\r\n\r\n", length=False),
        _answer("200 OK\nContent-Encoding: gzip", gzip.compress(b"blob" * 1000, mtime=0)),
        _answer("404 Not Found", b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no"}]}'),
    )


def _page(data: bytes, _place: Path) -> None:
    """An address out of a Location or Link header."""
    endpoint = Endpoint(RegistryAddress.parse(f"https://{_HOST}/a"), Client(_SETTINGS), Keychain(), lambda _: None)
    base = endpoint.url("tool", "tags", "list")
    target = endpoint.resolve(base, data.decode("latin-1"))
    assert target.startswith("https://")
    endpoint.is_ours(target)


_ADDRESSES = (
    b"/v2/tool/blobs/uploads/1?_state=x",
    b"https://localhost:5000/v2/?a=b#c",
    b"http://localhost:5000/v2/",
    b"//h/x",
)
_WORDS = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 401 x",
    b"HTTP/1.1 999 ",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999",
    b"Transfer-Encoding: chunked",
    b"Location: http://[::1",
    b"Location: //x",
    b"Location: http://a:99999/",
    b"Content-Range: bytes 0-3/*",
    b"\r\n",
    b"WWW-Authenticate: Bearer realm=http://[",
    b"WWW-Authenticate: Bearer realm=https://x:y/",
    b"Docker-Content-Digest: sha256:0",
    b"\r\n\r\n",
    b"Retry-After: 99999999999",
    b"Link: <http://[>; rel=next",
    b'"expires_in": 1e999',
    b'"expires_in": NaN',
    b"ffffffffffffffff\r\n",
    b": x",
    b"Set-Cookie: a=b; Domain=x",
    b"Content-Encoding: br",
    b"Location: http://\xff\xfe/",
    b"Location: http://" + b"a" * 300 + b"/",
)

TARGETS = (
    Target("answer-over-http", _whole, _answers, "text", inputs=150, words=_WORDS, seconds=10.0),
    Target(
        "location", _page, lambda _: _ADDRESSES, "text", words=(b"//", b"@", b"[", b"]", b":", b"http:", b"\\", b"\t")
    ),
)

"""Connections that fail because of certificates, proxies or names, and their errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from factory.errors import RegistryFailure, UsageError
from factory.github.rest import connect
from factory.io.http.client import Client, HttpFailure, HttpSettings
from tests.servers import free_port, tool

ENVIRONMENT = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
NOW = datetime.now(timezone.utc)
CONFIG = """
[ca]
default_ca = x
[x]
dir = .
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost
"""


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(301 if self.path == "/down" else 200)
        self.send_header("Location", "http://localhost/plain")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENVIRONMENT, *PROXIES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run([tool("openssl"), *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, start: datetime, end: datetime) -> tuple[Path, Path]:
    """A CA and a certificate for localhost signed by it, valid from start to end."""
    (folder / "ca.cnf").write_text(CONFIG)
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(folder, *new, "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, *new, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    stamps = [f"{time:%y%m%d%H%M%SZ}" for time in (start, end)]
    signing = ["ca", "-batch", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"]
    signing += ["-startdate", stamps[0], "-enddate", stamps[1]]
    openssl(folder, *signing, "-in", "server.csr", "-out", "server.pem", "-notext")
    return folder / "ca.pem", folder / "server.pem"


@contextlib.contextmanager
def serving(folder: Path, *, valid: tuple[int, int] = (-1, 1), tls: bool = True) -> Iterator[tuple[str, str]]:
    """A web server on localhost. Yields its address and its CA file. valid: days from now."""
    server = HTTPServer(("127.0.0.1", 0), Hello)
    authority = Path()
    if tls:
        authority, own = certificate(folder, NOW + timedelta(days=valid[0]), NOW + timedelta(days=valid[1]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own, folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}", str(authority)
    finally:
        server.shutdown()
        server.server_close()


def client(ca: str | None = None) -> Client:
    return Client(HttpSettings(connect_timeout=2, idle_timeout=2, budget=5, attempts=4, backoff=0.05, ca_bundle=ca))


def test_a_site_authority_is_trusted_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as (host, ca):
        assert client(ca).request("GET", f"https://{host}/").content == b"hi"
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, ca)
            assert client().request("GET", f"https://{host}/").content == b"hi"
            monkeypatch.delenv(name)
        with pytest.raises(HttpFailure, match="not trusted") as caught:
            client().request("GET", f"https://{host}/")
        assert "setting ca" in caught.value.fix
        assert caught.value.attempts == 1


# A client in a mount namespace whose /etc is another folder: another machine's system store.
ELSEWHERE = """
mount --bind "$1" /etc && exec "$2" -c '
import sys
from factory.io.http.client import Client
sys.stdout.buffer.write(Client().request("GET", sys.argv[1]).content)
' "$3"
"""
STORES = {
    "Debian": "ssl/certs/ca-certificates.crt",
    "RHEL": "pki/tls/certs/ca-bundle.crt",
    "RHEL, extracted": "pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "SUSE": "ssl/ca-bundle.pem",
    "Alpine": "ssl/cert.pem",
}


def asked_elsewhere(etc: Path, url: str, **env: str) -> subprocess.CompletedProcess[str]:
    for name in ("hosts", "passwd", "nsswitch.conf", "ld.so.cache", "resolv.conf"):
        if Path("/etc", name).is_file():
            shutil.copy(Path("/etc", name), etc)
    isolated = [tool("unshare"), "--mount", "--map-root-user", "sh", "-c", ELSEWHERE, "sh"]
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*isolated, str(etc), sys.executable, url], check=False, capture_output=True, text=True, env=known | env
    )


@pytest.mark.parametrize("store", STORES.values(), ids=STORES.keys())
def test_a_site_authority_in_the_system_s_store_is_trusted(tmp_path: Path, store: str) -> None:
    etc = tmp_path / "etc"
    (etc / store).parent.mkdir(parents=True)
    with serving(tmp_path) as (host, ca):
        unknown = asked_elsewhere(etc, f"https://{host}/")
        assert "is not trusted" in unknown.stderr, unknown
        shutil.copy(ca, etc / store)
        done = asked_elsewhere(etc, f"https://{host}/")
        assert (done.returncode, done.stdout) == (0, "hi"), done.stderr
        only = asked_elsewhere(etc, f"https://{host}/", REQUESTS_CA_BUNDLE=str(requests.utils.DEFAULT_CA_BUNDLE_PATH))
        assert "is not trusted" in only.stderr, "REQUESTS_CA_BUNDLE replaces the system's store"


def test_a_damaged_system_store_does_not_stop_a_client(tmp_path: Path) -> None:
    (tmp_path / "etc/ssl/certs").mkdir(parents=True)
    (tmp_path / "etc/ssl/certs/ca-certificates.crt").write_text("-----BEGIN CERTIFICATE-----\nMII\n")
    with serving(tmp_path) as (host, ca):
        done = asked_elsewhere(tmp_path / "etc", f"https://{host}/", SSL_CERT_FILE=ca)
        assert (done.returncode, done.stdout) == (0, "hi"), done.stderr
        unknown = asked_elsewhere(tmp_path / "etc", f"https://{host}/")
    assert "is not trusted" in unknown.stderr, unknown


@pytest.mark.parametrize("hashed", [True, False], ids=["rehashed", "never rehashed"])
def test_certificates_in_ssl_cert_dir_are_trusted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hashed: bool,  # noqa: FBT001
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "README").write_text("no certificate\n")
    with serving(tmp_path) as (host, ca):
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        with pytest.raises(HttpFailure, match="not trusted"):
            client().request("GET", f"https://{host}/")
        shutil.copy(ca, folder / "site.crt")
        if hashed:
            openssl(tmp_path, "rehash", str(folder))
            monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}:{folder}")
        os.mkfifo(folder / "a-pipe.pem")
        assert client().request("GET", f"https://{host}/").content == b"hi"


def test_github_enterprise_with_a_site_authority_is_trusted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = HttpSettings(connect_timeout=2, idle_timeout=2, budget=5, attempts=1)
    with serving(tmp_path) as (host, ca):
        for authority, trusted in (("/nowhere", False), (ca, True)):
            monkeypatch.setenv("SSL_CERT_FILE", authority)
            github = connect(f"https://{host}/api/v3", "org/factory", "token", settings=impatient)
            with pytest.raises(RegistryFailure, match="cannot") as caught:
                github.comment(1, "key", "text")
            assert ("is not trusted" in str(caught.value)) is not trusted


@pytest.mark.parametrize(("valid", "why"), [((1, 2), "not valid yet"), ((-2, -1), "expired")])
def test_a_certificate_outside_its_time_points_at_the_clock(tmp_path: Path, valid: tuple[int, int], why: str) -> None:
    with serving(tmp_path, valid=valid) as (host, ca), pytest.raises(HttpFailure) as caught:
        client(ca).request("GET", f"https://{host}/")
    assert why in caught.value.why
    assert f"this machine's clock says {NOW:%Y-}" in caught.value.why
    assert "clock" in caught.value.fix
    assert not caught.value.retryable


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (host, ca), pytest.raises(HttpFailure, match="issued for another host name"):
        client(ca).request("GET", f"https://{host.replace('localhost', '127.0.0.1')}/")


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (host, ca), pytest.raises(HttpFailure, match="from https to plain http"):
        client(ca).request("GET", f"https://{host}/down")


def test_a_server_without_tls_is_distinguished_from_a_broken_one(tmp_path: Path) -> None:
    with serving(tmp_path, tls=False) as (host, _), pytest.raises(HttpFailure, match="does not speak TLS") as caught:
        client().request("GET", f"https://{host}/")
    assert f"write http://{host}" in caught.value.fix


def test_a_bundle_that_is_not_there_or_not_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"missing\.pem"):
        client(str(tmp_path / "missing.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server") as (host, _):
        with pytest.raises(UsageError, match="does not exist") as caught:
            client().request("GET", f"https://{host}/")
        assert "REQUESTS_CA_BUNDLE" in caught.value.fix
        (tmp_path / "missing.pem").write_text("no certificates")
        with pytest.raises(UsageError, match="no certificate in PEM format"):
            client().request("GET", f"https://{host}/")


def test_a_refused_connection_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # loopback never goes through a proxy
    with pytest.raises(HttpFailure) as caught:
        client().request("GET", f"http://127.0.0.1:{port}/")
    assert caught.value.lines()[0] == f"127.0.0.1:{port} refused the connection (attempt 3)"


def test_an_unknown_host_name_is_reported() -> None:
    with pytest.raises(HttpFailure, match=r"host name registry\.invalid cannot be resolved"):
        client().request("GET", "https://registry.invalid/v2/")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_failing_proxy_is_distinguished_from_the_registry(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    port = free_port()
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:hunter2@127.0.0.1:{port}")
    with pytest.raises(HttpFailure) as caught:
        client().request("GET", f"{scheme}://registry.invalid/v2/")
    assert f"the proxy 127.0.0.1:{port} cannot connect to registry.invalid" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.fix} {caught.value.__cause__}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_in_no_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "*.invalid, 10.0.0.0/8")
    with pytest.raises(HttpFailure, match=r"host name registry\.invalid cannot be resolved"):
        client().request("GET", f"{scheme}://registry.invalid/v2/")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("login", ["", "me:wr/ong@"])
def test_a_proxy_that_requires_a_login_is_reported(monkeypatch: pytest.MonkeyPatch, scheme: str, login: str) -> None:
    class Closed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_CONNECT = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Closed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{login}127.0.0.1:{server.server_address[1]}")
    try:
        with pytest.raises(HttpFailure, match="the proxy 127") as caught:
            client().request("GET", f"{scheme}://registry.invalid/v2/")
    finally:
        server.shutdown()
        server.server_close()
    assert "407" in caught.value.why or caught.value.status == 407
    assert "USER:PASSWORD" in caught.value.fix
    assert "attempt" not in caught.value.what, "asking again would not help"
    assert ("refuses the login" in caught.value.what) == (scheme == "http" and bool(login))
    assert "ong" not in str(caught.value).replace("wrong", "")

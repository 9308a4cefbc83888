"""Starts real servers for tests: a free loopback port, a temporary folder, a log, and an end by process id."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from factory.oci.names import RegistryAddress

USER, PASSWORD = "robot", "s3cret"
# bcrypt of PASSWORD, made once with crypt(3): no test needs to make another
_HTPASSWD = f"{USER}:$2b$04$kEXc13digDvId9EYtltBsuJKEYItcE4ceyQtgOfcXnfvQZecPD5VS\n"
_FAULTY = Path(__file__).parent / "integration" / "registry" / "faulty_registry.py"
_GHCR = _FAULTY.with_name("ghcr_registry.py")
_START_LIMIT = 20.0


@dataclass(frozen=True)
class Server:
    """A running server. log: what it printed."""

    host: str
    pid: int
    log: Path

    @property
    def address(self) -> RegistryAddress:
        return RegistryAddress.parse(f"http://{self.host}/images")


def tool(name: str) -> str:
    """The path of a program that tests need; fails the test with what to run when it is missing."""
    home = os.environ.get("SINGFACTORY_TEST_TOOLS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(home) if home else cache / "singfactory-test-tools") / "bin"
    found = shutil.which(name) or shutil.which(name, path=str(folder))
    if found is None:
        pytest.fail(f"{name} is missing: run scripts/install-test-tools", pytrace=False)
    return found


def _ports() -> Iterator[int]:
    """Ports for servers, never the same twice in one run.

    They lie below the range from which the kernel takes ports for outgoing connections, and each pytest-xdist worker
    has a thousand of its own. Two test runs on one machine begin at different places.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
    first, begin = 12_000 + 1000 * worker, os.getpid()
    for number in itertools.count(begin):
        yield first + number % 1000


_PORTS = _ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in itertools.islice(_PORTS, 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port between 12000 and 32000 is free for this worker", pytrace=False)


@contextlib.contextmanager
def running(
    arguments: Sequence[str], port: int, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server until the block ends. It counts as started when its port takes connections."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{Path(arguments[0]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(arguments), stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **(env or {})}
        )
    try:
        _wait_for(process, port, log)
        yield Server(f"127.0.0.1:{port}", process.pid, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def docker_registry(folder: Path, *, login: bool = False, port: int = 0, tls: Path | None = None) -> Iterator[Server]:
    """CNCF distribution. login: only USER with PASSWORD may use it (Basic). tls: a folder with ca.pem and key.pem."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if login:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if tls:
        config["http"]["tls"] = {"certificate": str(tls / "ca.pem"), "key": str(tls / "key.pem")}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with running([tool("docker-registry"), "serve", str(folder / "config.yml")], port, folder) as server:
        yield server


@contextlib.contextmanager
def crane_registry(folder: Path) -> Iterator[Server]:
    """go-containerregistry's own registry: small, and with the referrers API."""
    port = free_port()
    arguments = [tool("crane"), "registry", "serve", "--address", f"127.0.0.1:{port}"]
    with running(arguments, port, folder) as server:
        yield server


@dataclass(frozen=True)
class Faulty:
    """A registry behind a proxy that misbehaves on demand. other: a second port of it, as another host."""

    server: Server
    other: str
    record: Path

    @property
    def address(self) -> RegistryAddress:
        return self.server.address

    def requests(self, method: str = "", part: str = "", *, host: str = "") -> list[dict[str, Any]]:
        """What arrived, in order: method, path, query, host, headers, status, rule, active (answered at that time)."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [
            line
            for line in lines
            if method in ("", line["method"]) and part in line["path"] and host in ("", line["host"])
        ]

    def served(self, part: str = "") -> int:
        """Bytes of bodies that were sent so far; one that is still on its way counts when it has ended."""
        lines = [json.loads(line) for line in self.record.with_suffix(".served").read_text().splitlines()]
        return sum(line["bytes"] for line in lines if part in line["path"])


@contextlib.contextmanager
def faulty_registry(folder: Path, upstream: str, rules: Sequence[Mapping[str, Any]]) -> Iterator[Faulty]:
    """A proxy before ``upstream`` (HOST:PORT) that follows rules; faulty_registry.py tells them."""
    folder.mkdir(parents=True, exist_ok=True)
    port, other = free_port(), free_port()
    script, record = folder / f"rules-{port}.json", folder / f"record-{port}.jsonl"
    script.write_text(
        json.dumps(list(rules)).replace("OTHER", f"127.0.0.1:{other}").replace("SELF", f"127.0.0.1:{port}")
    )
    record.write_text("")
    record.with_suffix(".served").write_text("")
    arguments = [sys.executable, str(_FAULTY), str(port), str(other), upstream, str(script), str(record)]
    with running(arguments, port, folder) as server:
        yield Faulty(server, f"127.0.0.1:{other}", record)


@dataclass(frozen=True)
class Ghcr:
    """A stand-in for GHCR. public: the file of its public packages; proxy: HOST:PORT that leads to ghcr.io with TLS."""

    server: Server
    public: Path
    record: Path
    proxy: str = ""

    def address(self, namespace: str = "org/images") -> RegistryAddress:
        return RegistryAddress.parse(f"http://{self.server.host}/{namespace}")

    def make_public(self, *packages: str) -> None:
        """Make packages public, as their owner does on GitHub's web page."""
        with self.public.open("a") as file:
            file.write("".join(f"{package}\n" for package in packages))

    def requests(self) -> list[dict[str, Any]]:
        """What arrived, in order: method, path with query, user, status."""
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@contextlib.contextmanager
def ghcr_registry(
    folder: Path,
    *,
    refusal: int = 403,
    logins: Mapping[str, str] | None = None,
    writers: Sequence[str] = (USER,),
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Ghcr]:
    """GHCR in front of a docker-registry; see ghcr_registry.py. logins: the password of each user.

    certificate: certificate and key for ghcr.io; then it also serves TLS behind a proxy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    public, record, settings = folder / "public", folder / "record.jsonl", folder / "settings.json"
    public.touch()
    record.touch()
    port = free_port()
    with docker_registry(folder / "upstream") as upstream:
        values: dict[str, Any] = {"port": port, "upstream": upstream.host, "refusal": refusal}
        values |= {"logins": dict(logins or {USER: PASSWORD}), "writers": list(writers)}
        values |= {"public": str(public), "record": str(record)}
        if certificate is not None:
            values |= {"certificate": str(certificate[0]), "key": str(certificate[1])}
            values |= {"tls_port": free_port(), "proxy_port": free_port()}
        settings.write_text(json.dumps(values))
        with running([sys.executable, str(_GHCR), str(settings)], port, folder) as server:
            yield Ghcr(server, public, record, f"127.0.0.1:{values['proxy_port']}" if certificate else "")


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} does not start: {log.read_text(errors='replace')[-2000:]}", pytrace=False)
        time.sleep(0.05)
